"""The local executor: worker processes, each with its own threads, so that they do not compete for cores."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from sparsedial.runs.executor import Event, Group, Lost
from sparsedial.runs.pool import LEAVE_SECONDS, Pool
from sparsedial.runs.queued import Queued
from sparsedial.runs.spawned import Spawned, end_all
from sparsedial.runs.worker import Message, Placed, Progressed, event_of

WAIT_SECONDS = 1.0


@dataclass
class _Worker:
    spawned: Spawned
    group: Group = ()

    @property
    def process(self) -> SpawnProcess:
        return self.spawned.process

    @property
    def pipe(self) -> Connection:
        return self.spawned.pipe


class Local(Queued):
    """Executes groups in processes on this machine. They start when they are needed.

    When the context is left, idle ones go back to the pool from which they came; where none was given they end.
    """

    def __init__(self, *, text_folder: Path, runs_folder: Path, workers: int, pool: Pool | None = None) -> None:
        super().__init__()
        self._folders = text_folder, runs_folder
        self._most = workers
        self._pool = pool or Pool()
        self._gives_back = pool is not None
        self._workers: list[_Worker] = []

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *reason: object) -> None:
        """End the workers, a busy one at its next message, after saving its state; idle ones may go back instead."""
        workers, self._workers = self._workers, []
        self._queue.clear()
        back = [worker.spawned for worker in workers if self._gives_back and not worker.group]
        for spawned in back:
            self._pool.give_back(spawned)
        end_all([worker.spawned for worker in workers if worker.spawned not in back], LEAVE_SECONDS)

    def wait(self) -> list[Event]:
        """The workers' events; waits at most a second.

        Raises: UserError where a run cannot be done.
        """
        self._hand_out()
        return self._own_events(wait(self._pipes(), timeout=WAIT_SECONDS))

    def _pipes(self) -> list[Connection]:
        """Those of workers that have something to do."""
        return [worker.pipe for worker in self._workers if worker.group]

    def _own_events(self, ready: Iterable[object]) -> list[Event]:
        """The events of the own workers whose pipes are ready."""
        named = {worker.pipe: worker for worker in self._workers}
        return [self._received(named[pipe]) for pipe in ready if isinstance(pipe, Connection) and pipe in named]

    def _hand_out(self) -> None:
        """Start missing workers, and give waiting groups to idle ones."""
        for worker in [worker for worker in self._workers if not worker.group and not worker.process.is_alive()]:
            self._workers.remove(worker)
        while len(self._workers) < min(self._most, self._busy + len(self._queue)):
            self._workers.append(_Worker(self._pool.take()))
        for worker in self._workers:
            if not worker.group and self._queue:
                worker.group = self._queue.popleft()
                with contextlib.suppress(BrokenPipeError):  # it died: the next read from its pipe finds that
                    worker.pipe.send(Placed(worker.group, *self._folders))

    @property
    def _busy(self) -> int:
        return sum(bool(worker.group) for worker in self._workers)

    def _received(self, worker: _Worker) -> Event:
        try:
            message: Message = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            return self._removed(worker)
        group = worker.group
        if not isinstance(message, Progressed):
            worker.group = ()
        return event_of(message, group, None)

    def _removed(self, worker: _Worker) -> Lost:
        worker.process.join(1)
        self._workers.remove(worker)
        return Lost(group=worker.group)
