"""New processes of ours with a pipe to this one: they do not run its user's script again, and hear no Ctrl-C."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Spawned:
    """A process that ends when this one closes `pipe`."""

    process: SpawnProcess
    pipe: Connection


def spawn(work: Callable[..., object], *given: Any) -> Spawned:
    """A process that does `work` with its end of a pipe and what is given."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, *given), daemon=True)
    with held_back(signal.SIGINT), without_script():
        process.start()
    theirs.close()
    return Spawned(process, ours)


def end_all(processes: Iterable[Spawned], seconds: float) -> None:
    """Close their pipes, wait so long in all for them to end, and kill those that have not."""
    held = list(processes)
    for one in held:
        one.pipe.close()
    end = time.monotonic() + seconds
    for one in held:
        one.process.join(max(0.0, end - time.monotonic()))
        if one.process.is_alive():
            one.process.kill()


@contextlib.contextmanager
def without_script() -> Generator[None]:
    """Start processes within it that do not import the script of this one. What they are given to do lies in a module.

    Python imports the script in each process that it spawns, so one that calls a command without looking at its
    `__name__` would begin the same command there, and the new process would end before it has begun its work.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


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
