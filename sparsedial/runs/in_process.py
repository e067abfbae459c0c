"""The executor of `train`: runs in this process, one group after the other, with all threads."""

from __future__ import annotations

import contextlib
import time

import torch

from sparsedial.runs.executor import Ended, Event, Group, Moved
from sparsedial.runs.queued import Queued
from sparsedial.runs.run_store import RunStore
from sparsedial.runs.turns import Turns, opened
from sparsedial.text.prepare import Text

WAIT_SECONDS = 0.2  # between two events of progress


class InProcess(Queued):
    """Executes groups in this process. It trains while its events are waited for, and only then."""

    def __init__(self, *, text: Text, store: RunStore) -> None:
        super().__init__()
        self._text, self._store = text, store
        self._group: Group = ()
        self._turns: Turns = iter(())
        self._open = contextlib.ExitStack()

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *reason: object) -> None:
        """End the runs; those that have not ended save their state."""
        self._queue.clear()
        self._group = ()
        self._open.close()

    def wait(self) -> list[Event]:
        """Train for a short time.

        Raises: UserError where a run cannot be done.
        """
        if not self._group:
            if not self._queue:
                return []
            self._begin(self._queue.popleft())
        until = time.monotonic() + WAIT_SECONDS
        for number, step, rate in self._turns:
            if time.monotonic() >= until:
                task = self._group[number]
                return [Moved(task=task, step=step.index, loss=step.loss, steps_per_second=rate)]
        return [self._ended()]

    def _begin(self, group: Group) -> None:
        torch.set_num_threads(group[0].job.threads)
        self._group = group
        self._turns = self._open.enter_context(opened(group, self._text, self._store))

    def _ended(self) -> Ended:
        group, self._group = self._group, ()
        self._open.close()
        return Ended(group=group, runs=tuple(self._store.read(task.job.hash) for task in group))
