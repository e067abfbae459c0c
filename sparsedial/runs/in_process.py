"""The executor of `train`, and of a study on a GPU: runs in this process, one group after the other or several at once.

Several at once take turns. On a GPU a turn gives a run's next steps to its stream and goes on to the next run, so that
the GPU always has work of all of them.
"""

from __future__ import annotations

import contextlib
import time

import torch

from sparsedial.runs.card_memory import NoRoom, card_memory, counted_bytes
from sparsedial.runs.executor import Ended, Event, Group, Moved
from sparsedial.runs.queued import Queued
from sparsedial.runs.ranks.joined import Joined
from sparsedial.runs.run_store import RunStore
from sparsedial.runs.turns import Turns, opened
from sparsedial.text.prepare import Text

WAIT_SECONDS = 0.2  # between two events of a run's progress
TURN_SECONDS = 0.05  # of one of several groups, where no GPU ends it earlier


class InProcess(Queued):
    """Executes up to `most` groups at once in this process, timed ones alone, on a GPU as many as its memory holds.

    It trains while its events are waited for, and only then. As rank 0 it tells the other ranks to do the same.
    """

    def __init__(self, *, text: Text, store: RunStore, most: int = 1, joined: Joined | None = None) -> None:
        super().__init__()
        self._text, self._store, self._most, self._joined = text, store, most, joined or Joined()
        self._open: list[_Open] = []
        self._free = 0.0  # bytes of a GPU, before the first of the open groups began
        self._full = False  # whether a group waits until one of those that are open has ended

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *reason: object) -> None:
        """End the runs; those that have not ended save their state."""
        self._queue.clear()
        groups, self._open = self._open, []
        with contextlib.ExitStack() as closing:
            for one in groups:
                closing.callback(one.close)

    def wait(self) -> list[Event]:
        """Train for a short time: each group that is open has a turn.

        Raises: UserError where a run cannot be done.
        """
        while self._queue and len(self._open) < self._most and self._may_open(self._queue[0]):
            self._open.append(_Open(self._queue.popleft(), self._text, self._store, self._most > 1, self._joined))
        until, moved = time.monotonic() + WAIT_SECONDS, dict[_Open, Moved]()
        while self._open:
            for one in list(self._open):
                try:
                    event = one.turn(until if self._most == 1 else time.monotonic() + TURN_SECONDS)
                except NoRoom:
                    if len(self._open) == 1:
                        raise
                    self._wait_for_room(one)
                    moved.pop(one, None)
                    continue
                if isinstance(event, Moved):
                    moved[one] = event
                elif event is not None:
                    self._open.remove(one)
                    self._full = False
                    moved.pop(one, None)
                    return [*moved.values(), event]
            if time.monotonic() >= until:
                break
        return list(moved.values())

    def _wait_for_room(self, one: _Open) -> None:
        """A group found no memory beside the others: it begins again, or goes on, when one of these has ended."""
        one.close()
        self._open.remove(one)
        self._queue.appendleft(one.group)
        self._full = True

    def _may_open(self, group: Group) -> bool:
        """Whether a group may run beside those that are open; the first may: what does not fit is refused in words."""
        on_gpu = group[0].job.device != "cpu"
        if not self._open:
            self._free = card_memory().free if on_gpu else 0.0
            return True
        if self._full:
            return False
        if self._open[0].timed or _timed(group):
            return False
        return not on_gpu or sum(map(_bytes, (*(one.group for one in self._open), group))) <= self._free


def _timed(group: Group) -> bool:
    return any(task.alone for task in group)


def _bytes(group: Group) -> float:
    return sum(float(counted_bytes(task.job).total) for task in group)


class _Open:
    """A group that is being trained; with `several` a turn ends where a GPU has been given work, unless it is timed."""

    def __init__(self, group: Group, text: Text, store: RunStore, several: bool, joined: Joined) -> None:
        torch.set_num_threads(joined.threads_of(group[0].job.threads))
        self.group, self._store = group, store
        self._stack = contextlib.ExitStack()
        self.timed = _timed(group)
        self._stack.enter_context(joined.together())
        turns = opened(group, text, store, several and not self.timed, joined)
        self._turns: Turns = self._stack.enter_context(turns)
        joined.tell(group, text, store)

    def turn(self, until: float) -> Moved | Ended | None:
        """Train until this time, or until a GPU has been given work; what came of it, None where no step did."""
        moved = None
        for number, step, rate in self._turns:
            if step is None:
                return moved
            task = self.group[number]
            moved = Moved(task=task, step=step.index, loss=step.loss, steps_per_second=rate)
            if time.monotonic() >= until:
                return moved
        self.close()
        return Ended(group=self.group, runs=tuple(self._store.read(task.job.hash) for task in self.group))

    def close(self) -> None:
        """End the runs; those that have not ended save their state."""
        self._stack.close()
