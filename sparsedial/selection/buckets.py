"""Which documents have an equal band: keys and documents in sorted arrays, 12 bytes for each band of a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

GROWTH = 2  # a level is merged into the one before where that is not so many times as large


@dataclass(frozen=True, eq=False)
class _Level:
    """Keys in order, and the document of each."""

    keys_K: np.ndarray
    places_K: np.ndarray

    def __len__(self) -> int:
        return len(self.keys_K)

    def merged(self, other: _Level) -> _Level:
        """Both in one."""
        keys = np.concatenate([self.keys_K, other.keys_K])
        order = np.argsort(keys, kind="stable")  # merges what is in order already
        return _Level(keys[order], np.concatenate([self.places_K, other.places_K])[order])


class Buckets:
    """Documents by the keys of their bands. They come in batches: those of earlier batches are looked up at once."""

    def __init__(self) -> None:
        self._levels: list[_Level] = []
        self._before: list[set[int]] = []
        self._fresh: dict[int, list[int]] = {}
        self._added: list[tuple[int, np.ndarray]] = []  # the same, as it came

    def begin(self, keys_of: Sequence[np.ndarray]) -> None:
        """Begin a batch of documents with these keys."""
        self._settle()
        self._before = [set() for _ in keys_of]
        keys_K = np.concatenate(keys_of) if keys_of else np.empty(0, np.uint64)
        owners_K = np.repeat(np.arange(len(keys_of)), [len(keys) for keys in keys_of])
        for level in self._levels:
            lefts, rights = (np.searchsorted(level.keys_K, keys_K, side) for side in ("left", "right"))
            for at in np.flatnonzero(rights > lefts).tolist():
                self._before[owners_K[at]].update(level.places_K[lefts[at] : rights[at]].tolist())

    def candidates(self, at: int, keys_B: np.ndarray) -> list[int]:
        """The documents that share a band with the one that is at this place of the batch, in rising order."""
        fresh = (self._fresh.get(key, ()) for key in keys_B.tolist())
        return sorted(self._before[at].union(*fresh))

    def add(self, place: int, keys_B: np.ndarray) -> None:
        """Add a document; later ones of the same batch find it, too."""
        self._added.append((place, keys_B))
        for key in keys_B.tolist():
            self._fresh.setdefault(key, []).append(place)

    def _settle(self) -> None:
        """Sort what the last batch added, and merge levels of like sizes."""
        if not self._added:
            return
        keys = np.concatenate([keys_B for _, keys_B in self._added])
        places = np.repeat([place for place, _ in self._added], [len(keys_B) for _, keys_B in self._added])
        order = np.argsort(keys, kind="stable")
        self._levels.append(_Level(keys[order], places[order].astype(np.int32)))
        self._fresh, self._added = {}, []
        while len(self._levels) > 1 and len(self._levels[-2]) < GROWTH * len(self._levels[-1]):
            last = self._levels.pop()
            self._levels.append(self._levels.pop().merged(last))
