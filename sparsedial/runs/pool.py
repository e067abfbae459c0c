"""Idle worker processes of this machine, kept from one phase of a study to the next: each start imports PyTorch."""

from __future__ import annotations

import os

from sparsedial.runs.spawned import Spawned, end_all, spawn
from sparsedial.runs.worker import work

LEAVE_SECONDS = 5.0  # for a stopped worker to end its step and save its run's state


class Pool:
    """Executors take workers from it and give back those that have nothing to do. They end with the context."""

    def __init__(self) -> None:
        self._idle: list[Spawned] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *reason: object) -> None:
        """End the idle workers."""
        idle, self._idle = self._idle, []
        end_all(idle, LEAVE_SECONDS)

    def take(self) -> Spawned:
        """A worker that has nothing to do: one that was given back and still lives, else a new one."""
        while self._idle:
            worker = self._idle.pop()
            if worker.process.is_alive():
                return worker
            worker.pipe.close()
        return spawn(work, os.getpid())

    def give_back(self, worker: Spawned) -> None:
        """Keep a worker that has nothing to do."""
        self._idle.append(worker)
