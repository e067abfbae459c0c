"""Runs in one process take turns, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator, Sequence

from sparsedial.records.run import Run
from sparsedial.runs.execute import execute
from sparsedial.runs.executor import Group
from sparsedial.runs.ranks.joined import Joined
from sparsedial.runs.run_store import RunStore
from sparsedial.text.prepare import Text
from sparsedial.training.loop import Step
from sparsedial.training.resume import forget_state

TURN_SECONDS = 1.0

Steps = Generator[Step | None, None, Run]
Turns = Iterator[tuple[int, Step | None, float]]
END = object()


@contextlib.contextmanager
def opened(
    group: Group, text: Text, store: RunStore, pauses: bool = False, joined: Joined | None = None
) -> Generator[Turns]:
    """The steps of a group's tasks in turns. A run that has not ended when the block is left saves its state.

    With `pauses` a turn also ends, without a step, where a GPU has been given work.
    """
    _start_together(group, store)
    runs = [
        execute(
            task.job,
            text,
            store,
            splits=task.splits,
            evaluation_tokens=task.evaluation_tokens,
            probes=task.probes,
            alone=task.alone,
            keep_checkpoint=task.keep_checkpoint,
            keep_trunk=task.keep_trunk,
            pauses=pauses,
            joined=joined,
        )
        for task in group
    ]
    with contextlib.ExitStack() as open_runs:
        for run in runs:
            open_runs.callback(run.close)
        yield take_turns(runs)


def _start_together(group: Group, store: RunStore) -> None:
    """Forget the saved states of timed runs unless all have one: times are compared only within the same sessions."""
    states = [store.unfinished(task.job.hash) for task in group]
    if any(task.alone for task in group) and not all(state.exists() for state in states):
        for state in states:
            forget_state(state)


def take_turns(runs: Sequence[Steps], turn_seconds: float = TURN_SECONDS) -> Turns:
    """Run all runs to their end. Yields the number of the run, its step, and its steps per second so far.

    Without a step it is a pause. A single run needs no turns.
    """
    spent, going = [0.0] * len(runs), list(range(len(runs)))
    first: dict[int, int] = {}  # a resumed run does not begin at step 0
    while going:
        for number in list(going):
            alone, began = len(going) == 1, time.monotonic()
            before = spent[number]
            while alone or time.monotonic() - began < turn_seconds:
                step = next(runs[number], END)
                spent[number] = before + time.monotonic() - began
                if step is END:
                    going.remove(number)
                    break
                if not isinstance(step, Step):
                    yield number, None, 0.0
                    break
                taken = step.index - first.setdefault(number, step.index) + 1
                yield number, step, taken / spent[number]
