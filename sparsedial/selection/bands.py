"""Sketches cut into bands: two documents with an equal band are candidates for near copies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsedial.selection.words import FACTOR, mixed

MOST_PERMUTATIONS = 128
FOUND_SHARE = 0.995  # of pairs at the threshold that become candidates


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

    def keys(self, sketches_NP: np.ndarray) -> np.ndarray:
        """A hash of each band of each sketch, which holds the band's place: bands of different places never match.

        Shapes: uint32 [documents, permutations] to uint64 [documents, bands]
        """
        cut = sketches_NP.reshape(len(sketches_NP), self.count, self.rows).astype(np.uint64)
        keys = np.broadcast_to(np.arange(self.count, dtype=np.uint64), cut.shape[:2])
        for row in range(self.rows):
            keys = mixed(keys * FACTOR + cut[:, :, row])
        return keys


def bands_for(threshold: float) -> Bands:
    """The bands of most rows that still find the pairs at the threshold; where none do, those of one row.

    Source: Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4
    """
    each = (Bands(MOST_PERMUTATIONS // rows, rows) for rows in range(MOST_PERMUTATIONS, 0, -1))
    return next((bands for bands in each if bands.found(threshold) >= FOUND_SHARE), Bands(MOST_PERMUTATIONS, 1))
