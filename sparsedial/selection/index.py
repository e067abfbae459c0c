"""Which kept documents a document is a near copy of: candidates by LSH, each checked by exact Jaccard similarity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sparsedial.selection.buckets import Buckets
from sparsedial.selection.sketch import Sketch
from sparsedial.selection.words import jaccard


@dataclass(frozen=True)
class Match:
    """A kept document that another was compared with."""

    document: int  # its number in the corpus
    jaccard: float


class Held(Protocol):
    """Sketches of a corpus's documents, by their number."""

    def batches(self, wanted: Sequence[bool]) -> Iterator[list[tuple[int, Sketch]]]:
        """The documents that are wanted, batch by batch, with their numbers."""
        ...

    def runs_counted(self, place: int) -> int:
        """How many runs a document has."""
        ...

    def runs(self, place: int) -> np.ndarray:
        """The runs of a document."""
        ...


class Index:
    """The kept documents, by number in the corpus: bands in memory, runs of words in the file of sketches."""

    def __init__(self, held: Held) -> None:
        self._held, self._buckets = held, Buckets()
        self._added: list[int] = []  # documents in the order in which they were added

    def begin(self, batch: Sequence[Sketch]) -> None:
        """Begin a batch of documents that are compared in turn."""
        self._buckets.begin([sketch.keys for sketch in batch])

    def add(self, document: int, sketch: Sketch) -> None:
        """Add a document that is kept."""
        self._buckets.add(len(self._added), sketch.keys)
        self._added.append(document)

    def matches(self, at: int, sketch: Sketch, least: float) -> list[Match]:
        """The kept documents that share at least so much with the one at this place of the batch, in their order."""
        found = []
        for place in self._buckets.candidates(at, sketch.keys):
            document = self._added[place]
            sizes = sorted((self._held.runs_counted(document), len(sketch.runs)))
            if sizes[0] < least * sizes[1]:
                continue  # they cannot share so much
            share = jaccard(self._held.runs(document), sketch.runs)
            if share >= least:
                found.append(Match(document, share))
        return found
