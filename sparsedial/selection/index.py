"""Which kept documents a document is a near copy of: candidates by LSH, each checked by exact Jaccard similarity."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparsedial.errors import UserError
from sparsedial.selection.minhash import RMinHashLSH  # pyright: ignore[reportAttributeAccessIssue]
from sparsedial.selection.sketch import Sketch, jaccard

MOST_PERMUTATIONS = 128
FOUND_SHARE = 0.995  # of pairs at the threshold that become candidates
HASH_BYTES = 8


@dataclass(frozen=True)
class Bands:
    """A sketch cut into bands of rows: documents with an equal band are candidates."""

    count: int
    rows: int

    @property
    def permutations(self) -> int:
        """Numbers of a sketch."""
        return self.count * self.rows

    def found(self, similarity: float) -> float:
        """The probability that a pair of this Jaccard similarity has an equal band."""
        return 1 - (1 - similarity**self.rows) ** self.count


def bands_for(threshold: float) -> Bands:
    """The bands of most rows that still find the pairs at the threshold; where none do, those of one row.

    Source: Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4
    """
    each = (Bands(MOST_PERMUTATIONS // rows, rows) for rows in range(MOST_PERMUTATIONS, 0, -1))
    return next((bands for bands in each if bands.found(threshold) >= FOUND_SHARE), Bands(MOST_PERMUTATIONS, 1))


@dataclass(frozen=True)
class Match:
    """A kept document that another was compared with."""

    document: int  # its number in the corpus
    jaccard: float


class Index:
    """The kept documents, by number in the corpus: bands in memory, runs of words in a file that has no name."""

    def __init__(self, bands: Bands, threshold: float, folder: Path) -> None:
        self._lsh = RMinHashLSH(threshold, bands.permutations, bands.count)
        self._documents, self._ends = array("q"), array("q", [0])
        with _on_disk(folder):
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed by close
        self._threshold, self._folder = threshold, folder

    def add(self, document: int, sketch: Sketch) -> None:
        """Add a document that is kept.

        Raises: UserError where the disk is full.
        """
        self._lsh.insert(len(self._documents), sketch.minhash)
        self._documents.append(document)
        self._ends.append(self._ends[-1] + len(sketch.runs))
        with _on_disk(self._folder):
            self._file.write(sketch.runs.tobytes())

    def matches(self, sketch: Sketch, least: float) -> list[Match]:
        """The kept documents that share at least so much with this one, in the order in which they were added."""
        found = []
        for place in sorted(self._lsh.query(sketch.minhash)):
            sizes = sorted((self._ends[place + 1] - self._ends[place], len(sketch.runs)))
            if sizes[0] < least * sizes[1]:
                continue  # they cannot share so much
            share = jaccard(self._runs(place), sketch.runs)
            if share >= least:
                found.append(Match(self._documents[place], share))
        return found

    def _runs(self, place: int) -> np.ndarray:
        begin, end = self._ends[place], self._ends[place + 1]
        self._file.flush()
        data = os.pread(self._file.fileno(), HASH_BYTES * (end - begin), HASH_BYTES * begin)
        return np.frombuffer(data, np.uint64)

    def close(self) -> None:
        """Remove the file."""
        self._file.close()


@contextmanager
def _on_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "choose another folder, or free some space"
        raise UserError(f"cannot write in {folder}: {error.strerror}", hint=hint, field="out") from error
