"""Rules for all executors: no run is done twice, follow-up tasks are added at once, lost runs are repeated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from sparsedial.errors import UserError
from sparsedial.records.run import Run
from sparsedial.runs.executor import Ended, Executor, Group, Lost, Moved, Task

MOST_TRIES = 3  # a run that kills its worker this many times ends the study

Follow = Callable[[Task, Run], Iterable[Task]]  # the tasks that follow a run


class Shelf(Protocol):
    """Finds runs that ended."""

    def find(self, run_hash: str) -> Run | None:
        """The run that ended with this hash, or None."""
        ...

    def has_checkpoint(self, run_hash: str) -> bool:
        """Whether the run's checkpoint was kept."""
        ...


class Listener(Protocol):
    """Receives events of progress."""

    def moved(self, event: Moved) -> None:
        """A running task has made progress."""
        ...

    def ended(self, task: Task, run: Run) -> None:
        """A task ended, or was already done."""
        ...


def done(task: Task, shelf: Shelf) -> Run | None:
    """The earlier run that serves for a task, or None.

    A run that shared the machine does not serve for a timed task. A run without a test loss, scores on probes or a
    checkpoint does not serve for a task that needs it.
    """
    run = shelf.find(task.job.hash)
    if run is None or (task.alone and not run.alone):
        return None
    if run.finished and "test" in task.splits and run.test_loss is None:
        return None
    if run.finished and task.probes and run.probes is None:
        return None
    if run.finished and task.keep_checkpoint and not shelf.has_checkpoint(run.hash):
        return None
    return run


def carry_out(
    groups: Iterable[Group],
    *,
    executor: Executor,
    shelf: Shelf,
    listener: Listener,
    follow: Follow = lambda task, run: (),
) -> dict[str, Run]:
    """Execute all groups of tasks in order, and the tasks that `follow` returns for each run. Returns runs by hash.

    A group whose runs are all on the shelf is not executed. A group that is partly done is executed again as a whole,
    from the first step where it is timed, so that its times can be compared.

    Raises: UserError where a run cannot be done, or kills its worker again and again.
    """
    orders = _Orders(shelf=shelf, listener=listener, follow=follow)
    for group in groups:
        orders.add(group)
    if not orders.waiting:
        return orders.runs
    with executor:
        while orders.waiting or orders.submitted:
            for group in orders.take():
                executor.submit(group)
            for event in executor.wait():
                if isinstance(event, Moved):
                    listener.moved(event)
                elif isinstance(event, Ended):
                    orders.end(event)
                else:
                    executor.submit(orders.lost(event), first=True)
    return orders.runs


def _alone(group: Group) -> bool:
    return any(task.alone for task in group)


@dataclass
class _Orders:
    """The waiting groups, the number of submitted ones, and the runs that came back."""

    shelf: Shelf
    listener: Listener
    follow: Follow
    waiting: list[Group] = field(default_factory=list[Group])
    submitted: int = 0
    lonely: bool = False  # whether the submitted group needs the machine to itself
    runs: dict[str, Run] = field(default_factory=dict[str, Run])
    tries: Counter[str] = field(default_factory=Counter[str])

    def add(self, group: Group) -> None:
        """Add a group: accept its runs from the shelf, or queue it."""
        found = [run for task in group if (run := done(task, self.shelf)) is not None]
        if len(found) < len(group):
            self.waiting.append(group)
            return
        for task, run in zip(group, found, strict=True):
            self._accept(task, run)

    def take(self) -> list[Group]:
        """Take the waiting groups that may start now; one that needs the machine to itself starts alone."""
        groups: list[Group] = []
        while self.waiting and not self.lonely and (not _alone(self.waiting[0]) or not self.submitted):
            groups.append(self.waiting.pop(0))
            self.submitted += 1
            self.lonely = _alone(groups[-1])
        return groups

    def end(self, event: Ended) -> None:
        """Accept the runs of a group."""
        self.submitted -= 1
        self.lonely = False
        for task, run in zip(event.group, event.runs, strict=True):
            self._accept(task, run)

    def lost(self, event: Lost) -> Group:
        """The group whose worker died, to be submitted again.

        On another machine a worker may be gone for any reason, which says nothing about the run.

        Raises: UserError where this happened too often on this machine.
        """
        task = event.group[0]
        self.tries[task.job.hash] += event.host is None
        if self.tries[task.job.hash] >= MOST_TRIES:
            raise UserError(
                f"run {task.job.hash[:16]} ({task.label}) killed its worker {MOST_TRIES} times",
                hint="there may be too little memory: give fewer <workers>, or a lower <max_total_parameters>",
            )
        return event.group

    def _accept(self, task: Task, run: Run) -> None:
        self.runs[task.job.hash] = run
        self.listener.ended(task, run)
        for more in self.follow(task, run):
            self.add((more,))
