"""A worker process: take a group, train it, send its runs; exit when the parent is gone."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from sparsedial.errors import UserError
from sparsedial.records.run import Run
from sparsedial.runs.executor import Ended, Group, Moved
from sparsedial.runs.run_store import RunStore

if TYPE_CHECKING:
    from sparsedial.text.prepare import Text

PROGRESS_SECONDS = 0.5  # between two messages of a worker


@dataclass(frozen=True, kw_only=True)
class Progressed:
    """A task of the group has made progress."""

    number: int  # of the task in the group, from 0
    step: int
    loss: float
    steps_per_second: float


@dataclass(frozen=True, kw_only=True)
class Done:
    """The group ended."""

    runs: tuple[Run, ...]


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A run cannot be done."""

    error: UserError


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A bug of ours, with its traceback."""

    trace: str


@dataclass(frozen=True, kw_only=True)
class Alive:
    """A worker of another machine is still there."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a worker of another machine is given: a group, and its text, as a path from the study's folder."""

    text: str
    group: Group


@dataclass(frozen=True)
class Placed:
    """What a worker of this machine is given: a group, the folder of its text, and where its runs are stored."""

    group: Group
    text_folder: Path
    runs_folder: Path


Message = Progressed | Done | Refused | Broken


def event_of(message: Message, group: Group, host: str | None) -> Moved | Ended:
    """What a worker's message about its group is to those who wait for events.

    Raises: UserError where a run cannot be done; RuntimeError for a bug of ours.
    """
    if isinstance(message, Progressed):
        return Moved(
            task=group[message.number],
            step=message.step,
            loss=message.loss,
            steps_per_second=message.steps_per_second,
        )
    if isinstance(message, Refused):
        raise message.error
    if isinstance(message, Broken):
        raise RuntimeError(f"a worker failed:\n{message.trace}")
    return Ended(group=group, runs=message.runs, host=host)


def work(pipe: Connection, parent: int) -> None:
    """Serve groups from a pipe until it closes. A text stays open until a group has another one."""
    from sparsedial.text.prepare import open_text

    def tell(moved: Progressed) -> None:
        if os.getppid() != parent:
            raise BrokenPipeError
        pipe.send(moved)

    settle_threads()
    text = lru_cache(maxsize=1)(open_text)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            given: Placed = pipe.recv()
            pipe.send(answer(given.group, partial(text, given.text_folder), RunStore(given.runs_folder), tell))


def settle_threads() -> None:
    """Once in a process of workers, before its first run."""
    import torch

    torch.set_num_interop_threads(1)


def answer(group: Group, text: Callable[[], Text], store: RunStore, tell: Callable[[Progressed], None]) -> Message:
    """Train a group, and say how it ended; `tell` is called with its progress.

    Raises: ConnectionError as `tell` does, where nobody wants the runs any more; their states are saved.
    """
    import torch

    torch.set_num_threads(group[0].job.threads)
    try:
        return Done(runs=_train(group, text(), store, tell))
    except UserError as error:
        return Refused(error=error)
    except ConnectionError:  # the parent is gone
        raise
    except Exception:  # the parent raises it again
        return Broken(trace=traceback.format_exc())


def _train(group: Group, text: Text, store: RunStore, tell: Callable[[Progressed], None]) -> tuple[Run, ...]:
    from sparsedial.runs.turns import opened

    last_sent = time.monotonic()
    with opened(group, text, store) as turns:
        for number, step, rate in turns:
            if step is not None and time.monotonic() - last_sent >= PROGRESS_SECONDS:
                tell(Progressed(number=number, step=step.index, loss=step.loss, steps_per_second=rate))
                last_sent = time.monotonic()
    return tuple(store.read(task.job.hash) for task in group)
