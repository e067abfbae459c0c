"""The workers that one machine sends to a study: processes that each join it, until it ends or they are called back."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.records.launch import Hello
from sparsedial.runs.joining import dial, find_meeting, serve
from sparsedial.runs.local import LEAVE_SECONDS, held_back
from sparsedial.runs.setup import setup_here
from sparsedial.runs.spawned import without_script
from sparsedial.runs.worker import settle_threads
from sparsedial.units import count_words

Report = UserError | int | None  # why a worker was not let in; None that it was; at the end the number of its runs


@dataclass(frozen=True)
class _Hand:
    """A worker process; it leaves when its parent closes `pipe`."""

    process: SpawnProcess
    pipe: Connection


def send_workers(folder: Path, host: str, workers: int, note: Callable[[str], None]) -> int:
    """Let so many workers join the study of a folder; gives the runs that they trained until the study ended.

    Ctrl-C calls them back: their unfinished runs save their states.

    Raises: UserError where the study cannot be found, or does not let them in.
    """
    find_meeting(folder)
    hands = [_start(folder, host) for _ in range(workers)]
    try:
        return _heard(hands, note)
    finally:
        _call_back(hands)


def _heard(hands: Sequence[_Hand], note: Callable[[str], None]) -> int:
    """Listen to the workers until the last one has ended."""
    pipes, joined, runs = [hand.pipe for hand in hands], 0, 0
    while pipes:
        for pipe in [pipe for pipe in wait(pipes) if isinstance(pipe, Connection)]:
            try:
                report: Report = pipe.recv()
            except EOFError:
                report = 0
                note("a worker died: another one trains what it had")
            if isinstance(report, UserError):
                raise report
            if report is None:
                joined += 1
                if joined == len(hands):
                    note(f"{count_words(joined, 'worker')} joined the study")
            else:
                pipes.remove(pipe)
                runs += report
    return runs


def _start(folder: Path, host: str) -> _Hand:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_join, args=(theirs, folder, host), daemon=True)
    with held_back(signal.SIGINT), without_script():
        process.start()
    theirs.close()
    return _Hand(process, ours)


def _join(pipe: Connection, folder: Path, host: str) -> None:
    """In a process of its own: join the study, and work for it."""
    try:
        hello = Hello(host=host, process=os.getpid(), setup=setup_here())
        connection = dial(find_meeting(folder), hello)
    except UserError as error:
        return pipe.send(error)
    settle_threads()
    pipe.send(None)
    return pipe.send(serve(connection, folder, pipe))


def _call_back(hands: Sequence[_Hand]) -> None:
    """End the workers: a busy one saves its run's state at its next step."""
    for hand in hands:
        hand.pipe.close()
    end = time.monotonic() + LEAVE_SECONDS
    for hand in hands:
        hand.process.join(max(0.0, end - time.monotonic()))
        if hand.process.is_alive():
            hand.process.kill()
