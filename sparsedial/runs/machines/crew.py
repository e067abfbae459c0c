"""The workers that one machine sends to a study: processes that each join it, until it ends or they are called back."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.records.launch import Hello
from sparsedial.runs.local import LEAVE_SECONDS
from sparsedial.runs.machines.joining import await_meeting, dial, find_meeting, serve
from sparsedial.runs.machines.setup import setup_here
from sparsedial.runs.spawned import Spawned, end_all, spawn
from sparsedial.runs.worker import settle_threads
from sparsedial.units import count_words

Report = UserError | int | None  # why a worker was not let in; None that it was; at the end the number of its runs


def send_workers(folder: Path, host: str, workers: int, wait_seconds: float, note: Callable[[str], None]) -> int:
    """Let so many workers join the study of a folder; gives the runs that they trained until the study ended.

    A study that has not begun is waited for.

    Ctrl-C calls them back: their unfinished runs save their states.

    Raises: UserError where the study cannot be found, or does not let them in, or where all of them died.
    """
    await_meeting(folder, wait_seconds, note)
    hands = [spawn(_join, folder, host) for _ in range(workers)]
    try:
        return _heard(hands, note)
    finally:
        end_all(hands, LEAVE_SECONDS)  # a busy one saves its run's state at its next step


def _heard(hands: Sequence[Spawned], note: Callable[[str], None]) -> int:
    """Listen to the workers until the last one has ended."""
    pipes, joined, died, runs = [hand.pipe for hand in hands], 0, 0, 0
    while pipes:
        for pipe in [pipe for pipe in wait(pipes) if isinstance(pipe, Connection)]:
            try:
                report: Report = pipe.recv()
            except EOFError:
                report = 0
                died += 1
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
    if died == len(hands):
        raise UserError(
            f"{'all ' if died > 1 else ''}{count_words(died, 'worker')} of this machine died",
            hint="the system kills processes where memory runs out; give fewer <workers>",
        )
    return runs


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
