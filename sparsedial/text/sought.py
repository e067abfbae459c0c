"""A set of hashes that is sought in a stream of them."""

from __future__ import annotations

import numpy as np

SPARE_BITS, MOST_BITS = 5, 26  # the filter lets at most 1 in 32 others pass, up to 64 MiB


class Sought:
    """64-bit hashes, and which of them were met. Only they are held, whatever the length of the stream."""

    def __init__(self, hashes: np.ndarray) -> None:
        self._hashes = distinct(hashes)
        self._met = np.zeros(len(self._hashes), bool)
        bits = min(MOST_BITS, len(self._hashes).bit_length() + SPARE_BITS)
        self._shift = np.uint64(64 - bits)
        self._filter = np.zeros(2**bits, bool)
        self._filter[self._hashes >> self._shift] = True

    def look_through(self, hashes: np.ndarray) -> None:
        """Mark those that these hashes hold."""
        self._met[self._places(hashes)] = True

    def among(self, hashes: np.ndarray) -> np.ndarray:
        """Those that these hashes hold, in order."""
        return self._hashes[distinct(self._places(hashes))]

    def _places(self, hashes: np.ndarray) -> np.ndarray:
        if not len(self._hashes):
            return np.empty(0, np.int64)
        likely = hashes[self._filter[hashes >> self._shift]]
        index = np.searchsorted(self._hashes, likely)
        index[index == len(self._hashes)] = 0
        return index[self._hashes[index] == likely]

    def met(self, hashes: np.ndarray) -> np.ndarray:
        """Whether each of these was met; all of them are sought."""
        return self._met[np.searchsorted(self._hashes, hashes)]


def distinct(hashes: np.ndarray) -> np.ndarray:
    """Integers in order, each once. `np.unique` takes ten times as long for 64-bit integers (NumPy 2.4)."""
    found = np.sort(hashes)
    return found[np.append(True, found[1:] != found[:-1])[: len(found)]]
