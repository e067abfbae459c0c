"""Documents sketched by several processes, in the order of the corpus: their number changes nothing but the time."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor

from sparsedial.selection.sketch import Sketch, sketches
from sparsedial.text.documents import Document

BATCH_BYTES = 2**21
AHEAD = 2  # batches of each process that are under way
Numbered = tuple[int, Document]  # with its number in the corpus


def sketched(documents: Iterable[Numbered], permutations: int, workers: int) -> Iterator[tuple[int, Document, Sketch]]:
    """Each document with its sketch, in their order; no more than some batches are held."""
    if workers == 1:
        for batch in _batches(documents):
            yield from _joined(batch, sketches(_texts(batch), permutations))
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_ignore_interrupts)
    under_way: deque[tuple[list[Numbered], Future[list[Sketch]]]] = deque()
    try:
        for batch in _batches(documents):
            under_way.append((batch, pool.submit(sketches, _texts(batch), permutations)))
            if len(under_way) > AHEAD * workers:
                done, future = under_way.popleft()
                yield from _joined(done, future.result())
        for done, future in under_way:
            yield from _joined(done, future.result())
    finally:
        pool.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C reaches every process of a terminal; the first one ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _batches(documents: Iterable[Numbered]) -> Iterator[list[Numbered]]:
    batch: list[Numbered] = []
    size = 0
    for number, document in documents:
        batch.append((number, document))
        size += len(document.text)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _texts(batch: list[Numbered]) -> list[bytes]:
    return [document.text for _, document in batch]


def _joined(batch: list[Numbered], made: list[Sketch]) -> Iterator[tuple[int, Document, Sketch]]:
    for (number, document), sketch in zip(batch, made, strict=True):
        yield number, document, sketch
