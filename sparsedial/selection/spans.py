"""Passages of 50 words and more that stand in several documents, and the documents that are mostly made of them.

A passage is found by its windows of 50 words. Each window has a mark, the least hash of the 25 runs of 26 words in it;
equal windows have equal marks, and few marks serve many windows. So one reading finds the marks that two documents
share, and only windows with such a mark are kept and compared in the next one (winnowing).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from sparsedial.selection.in_order import in_order
from sparsedial.selection.judging import Measured, Nearest
from sparsedial.selection.sketch import plain_of
from sparsedial.selection.words import hashed_words, word_runs
from sparsedial.text.documents import Document
from sparsedial.text.reading import Reading
from sparsedial.text.sought import distinct
from sparsedial.text.spaces import SPACE

SPAN_WORDS, MARK_WORDS = 50, 26
RUNS = SPAN_WORDS - MARK_WORDS + 1  # that a window holds
SMALL = 2**10  # hashes below which levels are merged at once
REASON = "spans"


@dataclass(frozen=True)
class SpanRule:
    """The share of a document's bytes that repeated passages may have."""

    threshold: float

    def keeps(self, value: float) -> bool:
        """Whether a document of which this share is repeated stays."""
        return value <= self.threshold


@dataclass
class Spans:
    """What of the train documents stands in documents before that stay; nothing where it was not asked for."""

    nearest: Nearest | None = None
    left_out: dict[int, float] = field(default_factory=dict)  # shares, by number in the corpus
    documents: int = 0  # that hold a repeated passage
    passages: int = 0  # as long as they go
    bytes: int = 0  # of them, with words one space apart


class Stood:
    """Hashes that stood before, in sorted arrays."""

    def __init__(self) -> None:
        self._levels: list[np.ndarray] = []

    def add(self, hashes: np.ndarray) -> None:
        """Add hashes."""
        self._levels.append(distinct(hashes))
        while len(self._levels) > 1 and len(self._levels[-2]) < max(SMALL, 2 * len(self._levels[-1])):
            last = self._levels.pop()
            self._levels.append(distinct(np.concatenate([self._levels.pop(), last])))

    def holds(self, hashes: np.ndarray) -> np.ndarray:
        """Whether each of these was added. Shapes: bool like the hashes"""
        found = np.zeros(len(hashes), bool)
        for level in self._levels:
            found |= _among(level, hashes)
        return found


def find_spans(reading: Reading, splits: Sequence[str | None], most: float | None, workers: int) -> Spans:
    """Read the text twice more; leave out train documents of which more than a share is passages that stood before.

    Held-out documents come first, then train documents in order; what is left out is not compared with, so each passage
    of a document that is left out stands in one that stays.

    Raises: UserError where a file changed since it was read.
    """
    if most is None:
        return Spans()
    found, stood, marks = Spans(Nearest(SpanRule(most))), Stood(), [np.empty(0, np.uint64)]
    marks += [made for _, made in in_order(_marked(reading, splits, stood), marks_of, workers)]
    shared = _twice(np.concatenate(marks))
    del marks
    for number, (document, split) in enumerate(zip(reading.again(), splits, strict=True)):
        if split == "train":
            _judge(found, stood, shared, number, plain_of(document.text))
    return found


def _marked(reading: Reading, splits: Sequence[str | None], stood: Stood) -> Iterator[Document]:
    """The documents that stay so far; the windows of held-out ones stood before all others."""
    for document, split in zip(reading.again(), splits, strict=True):
        if split is not None:
            if split != "train":
                stood.add(windows_of(hashed_words(plain_of(document.text)))[1])
            yield document


def marks_of(texts: Sequence[bytes]) -> np.ndarray:
    """The marks of texts, of each text each once."""
    return np.concatenate([distinct(windows_of(hashed_words(plain_of(text)))[0]) for text in texts])


def windows_of(hashed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mark and the hash of each window of 50 words; of a text with fewer words none.

    10^9 windows collide by chance once in 40 texts; then one window of 50 words is taken for another.

    Shapes: uint64 [words] to uint64 [words - 49], twice
    """
    if len(hashed) < SPAN_WORDS:
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    return _least_of(word_runs(hashed, MARK_WORDS), RUNS), word_runs(hashed, SPAN_WORDS)


def _least_of(values: np.ndarray, count: int) -> np.ndarray:
    """The least of so many values from each on: by windows that double."""
    size = 1
    while 2 * size <= count:
        values = np.minimum(values[:-size], values[size:])
        size *= 2
    rest = count - size
    return np.minimum(values[: len(values) - rest], values[rest:]) if rest else values


def _twice(values: np.ndarray) -> np.ndarray:
    """The values that come more than once, each once, in order."""
    values.sort()
    return distinct(values[1:][values[1:] == values[:-1]])


def _judge(found: Spans, stood: Stood, shared: np.ndarray, number: int, plain: bytes) -> None:
    """Measure a train document; its windows stand from now on, unless it is left out."""
    assert found.nearest is not None
    marks, windows = windows_of(hashed_words(plain))
    candidates = np.flatnonzero(_among(shared, marks))
    again = candidates[stood.holds(windows[candidates])]
    passages, size = _covered(plain, again)
    share = size / (len(plain) + 1)
    found.documents, found.passages, found.bytes = (
        found.documents + bool(passages),
        found.passages + passages,
        found.bytes + size,
    )
    if passages:
        found.nearest.add(Measured(number, share))
    if found.nearest.rule.keeps(share):
        stood.add(windows[candidates])
    else:
        found.left_out[number] = share


def _among(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Whether each value is one of those in order."""
    if not len(ordered):
        return np.zeros(len(values), bool)
    at = np.searchsorted(ordered, values)
    at[at == len(ordered)] = 0
    return ordered[at] == values


def _covered(plain: bytes, windows: np.ndarray) -> tuple[int, int]:
    """How many passages these windows of a text join to, and the bytes of those; windows by their first word.

    Passages that meet are one. A word counts with the space after it.
    """
    if not len(windows):
        return 0, 0
    begins = np.append(0, np.flatnonzero(np.frombuffer(plain, np.uint8) == SPACE) + 1)
    begins = np.append(begins, len(plain) + 1)
    firsts = windows[np.append(True, np.diff(windows) > SPAN_WORDS)]
    lasts = windows[np.append(np.diff(windows) > SPAN_WORDS, True)] + SPAN_WORDS
    return len(firsts), int((begins[lasts] - begins[firsts]).sum())
