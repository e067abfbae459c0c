"""The local executor: worker processes, each with its own threads, so that they do not compete for cores."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from sparsedial.runs.executor import Event, Group, Lost
from sparsedial.runs.queued import Queued
from sparsedial.runs.spawned import without_script
from sparsedial.runs.worker import Message, Progressed, event_of, work

LEAVE_SECONDS = 5.0  # for a stopped worker to end its step and save its run's state
WAIT_SECONDS = 1.0


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    group: Group = ()


class Local(Queued):
    """Executes groups in processes on this machine. They start when they are needed and end with the context."""

    def __init__(self, *, text_folder: Path, runs_folder: Path, workers: int) -> None:
        super().__init__()
        self._folders = text_folder, runs_folder
        self._most = workers
        self._workers: list[_Worker] = []

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *reason: object) -> None:
        """End the workers: an idle one at once, a busy one at its next message, after saving its state."""
        workers, self._workers = self._workers, []
        self._queue.clear()
        for worker in workers:
            worker.pipe.close()
        end = time.monotonic() + LEAVE_SECONDS
        for worker in workers:
            worker.process.join(max(0.0, end - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()

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
            self._workers.append(_start(*self._folders))
        for worker in self._workers:
            if not worker.group and self._queue:
                worker.group = self._queue.popleft()
                with contextlib.suppress(BrokenPipeError):  # it died: the next read from its pipe finds that
                    worker.pipe.send(worker.group)

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


def _start(text_folder: Path, runs_folder: Path) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, text_folder, runs_folder, os.getpid()), daemon=True)
    with held_back(signal.SIGINT), without_script():
        process.start()
    theirs.close()
    return _Worker(process=process, pipe=ours)


@contextlib.contextmanager
def held_back(number: signal.Signals) -> Generator[None]:
    """Block a signal: this process gets it after the block, processes started in the block never get it.

    Only the parent handles Ctrl-C, and ends its workers. A child that is still importing would print a traceback.
    """
    resource_tracker.ensure_running()  # it unblocks signals when it starts, so it is started first
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
