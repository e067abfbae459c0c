"""A worker process: take a group, train it, send its runs; exit when the parent is gone."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from sparsedial.errors import UserError
from sparsedial.records.run import Run
from sparsedial.runs.executor import Group
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


Message = Progressed | Done | Refused | Broken


def work(pipe: Connection, text_folder: Path, runs_folder: Path, parent: int) -> None:
    """Serve groups from a pipe until it closes."""
    import torch

    from sparsedial.text.prepare import open_text

    def train(group: Group, text: Text, store: RunStore) -> Message:
        torch.set_num_threads(group[0].job.threads)
        try:
            return Done(runs=_train(group, text, store, pipe, parent))
        except UserError as error:
            return Refused(error=error)
        except ConnectionError:  # the parent is gone
            raise
        except Exception:  # the parent raises it again
            return Broken(trace=traceback.format_exc())

    torch.set_num_interop_threads(1)
    text, store = open_text(text_folder), RunStore(runs_folder)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            pipe.send(train(pipe.recv(), text, store))


def _train(group: Group, text: Text, store: RunStore, pipe: Connection, parent: int) -> tuple[Run, ...]:
    from sparsedial.runs.turns import opened

    last_sent = time.monotonic()
    with opened(group, text, store) as turns:
        for number, step, rate in turns:
            if step is not None and time.monotonic() - last_sent >= PROGRESS_SECONDS:
                if os.getppid() != parent:
                    raise BrokenPipeError
                pipe.send(Progressed(number=number, step=step.index, loss=step.loss, steps_per_second=rate))
                last_sent = time.monotonic()
    return tuple(store.read(task.job.hash) for task in group)
