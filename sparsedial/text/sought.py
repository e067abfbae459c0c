"""A set of hashes that is sought in a stream of them."""

from __future__ import annotations

import numpy as np

SPARE_BITS, MOST_BITS = 5, 26  # the filter lets at most 1 in 32 others pass, up to 64 MiB


class Sought:
    """64-bit hashes, and which of them were met. Only they are held, whatever the length of the stream."""

    def __init__(self, hashes: np.ndarray) -> None:
        self._hashes = np.unique(hashes)
        self._met = np.zeros(len(self._hashes), bool)
        bits = min(MOST_BITS, len(self._hashes).bit_length() + SPARE_BITS)
        self._shift = np.uint64(64 - bits)
        self._filter = np.zeros(2**bits, bool)
        self._filter[self._hashes >> self._shift] = True

    def look_through(self, hashes: np.ndarray) -> None:
        """Mark those that these hashes hold."""
        if not len(self._hashes):
            return
        likely = hashes[self._filter[hashes >> self._shift]]
        index = np.searchsorted(self._hashes, likely)
        index[index == len(self._hashes)] = 0
        self._met[index[self._hashes[index] == likely]] = True

    def met(self, hashes: np.ndarray) -> np.ndarray:
        """Whether each of these was met; all of them are sought."""
        return self._met[np.searchsorted(self._hashes, hashes)]
