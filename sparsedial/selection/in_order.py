"""Work on documents by several processes, in the order of the corpus: their number changes nothing but the time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from sparsedial.errors import UserError
from sparsedial.runs.spawned import without_script
from sparsedial.text.documents import Document

BATCH_BYTES = 2**21
AHEAD = 2  # batches of each process that are under way
Made = TypeVar("Made")


class WorkerDied(UserError):
    """A process was killed; what was made before stays."""


def in_order(
    documents: Iterable[Document], work: Callable[[Sequence[bytes]], Made], workers: int
) -> Iterator[tuple[int, Made]]:
    """What `work` makes of each batch of texts, with the number of its documents; few batches are held.

    Raises: WorkerDied where one of the processes was killed.
    """
    if workers == 1:
        for batch in _batches(documents):
            yield len(batch), work(batch)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)
    under_way: deque[tuple[int, Future[Made]]] = deque()
    try:
        for batch in _batches(documents):
            with without_script():  # a process is started here where all others are busy
                under_way.append((len(batch), pool.submit(work, batch)))
            if len(under_way) > AHEAD * workers:
                count, future = under_way.popleft()
                yield count, future.result()
        for count, future in under_way:
            yield count, future.result()
    except BrokenProcessPool as error:
        raise WorkerDied(
            "a process that compares documents was killed, perhaps for lack of memory",
            hint="run the same command again, with fewer <workers>",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Ctrl-C reaches every process of a terminal; the first one ends the others, also where it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "this runs in a process of a pool"
    parent.join()
    os._exit(1)


def _batches(documents: Iterable[Document]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for document in documents:
        batch.append(document.text)
        size += len(document.text)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
