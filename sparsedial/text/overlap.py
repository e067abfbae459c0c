"""How much of the held-out text also occurs in the training text, in spite of the split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from sparsedial.records.text import HeldOutCounts, OverlapShares
from sparsedial.text.sought import Sought

WINDOW_BYTES = 64
MOST_WINDOWS = 2**16  # sampled per split: a share of 5 % is then known to 0.1 %
PAIRS = (
    ("validation", "train"),
    ("test", "train"),
    ("test", "validation"),
)  # windows of the first, sought in the second


class Overlap:
    """Samples of held-out windows, sought in the splits that are used before theirs."""

    def __init__(self, split_bytes: Mapping[str, int]) -> None:
        self._windows = {pair: Windows(split_bytes[pair[0]]) for pair in PAIRS}

    def sample(self, split: str, text: bytes) -> None:
        """Add windows of one held-out document to the sample."""
        for (source, _), windows in self._windows.items():
            if source == split:
                windows.add(text)

    def close(self) -> None:
        """End the samples; documents can be looked through after this."""
        for windows in self._windows.values():
            windows.close()

    def look_through(self, split: str, text: bytes) -> None:
        """Mark the sampled windows that this document holds."""
        sought = [windows for (_, sought_in), windows in self._windows.items() if sought_in == split]
        if sought:
            hashes = window_hashes(text)
            for windows in sought:
                windows.look_through(hashes)

    def record(self) -> OverlapShares:
        """Shares of sampled windows that were met, null where a split has no window."""
        validation, test, test_in_validation = (self._windows[pair] for pair in PAIRS)
        return OverlapShares(
            validation=validation.share_met,
            test=test.share_met,
            test_in_validation=test_in_validation.share_met,
            window_bytes=WINDOW_BYTES,
            sampled_windows=HeldOutCounts(validation=validation.count, test=test.count),
        )


class Windows:
    """A sample of the windows of a text, and which of them were found in another text."""

    def __init__(self, total_bytes: int) -> None:
        self._stride = max(1, -(-total_bytes // MOST_WINDOWS))
        self._position = 0  # of the next document's first byte
        self._sample: list[np.ndarray] = []
        self._hashes = np.empty(0, np.uint64)
        self._sought = Sought(self._hashes)

    def add(self, text: bytes) -> None:
        """Sample the windows of one document: one every stride bytes of the whole text, none across two documents."""
        hashes = window_hashes(text)
        self._sample.append(hashes[-self._position % self._stride :: self._stride].copy())  # not a view of them all
        self._position += len(text)

    def close(self) -> None:
        """End the sample; texts can be looked through after this."""
        self._hashes = np.concatenate([*self._sample, self._hashes])
        self._sought = Sought(self._hashes)

    def look_through(self, hashes: np.ndarray) -> None:
        """Mark the sampled windows that these hashes hold."""
        self._sought.look_through(hashes)

    @property
    def count(self) -> int:
        """Windows in the sample."""
        return len(self._hashes)

    @property
    def share_met(self) -> float | None:
        """The share of the sampled windows that were found; None without any window."""
        return float(np.mean(self._sought.met(self._hashes))) if self.count else None


def window_hashes(text: bytes) -> np.ndarray:
    """A 64-bit hash of every window of `WINDOW_BYTES` bytes, by position; equal windows have equal hashes.

    A polynomial modulo 2^64, built by doubling: 10^7 positions and 10^5 windows collide by chance once in 10^7 texts.
    """
    if len(text) < WINDOW_BYTES:
        return np.empty(0, np.uint64)
    return np.concatenate(list(_hash_blocks(np.frombuffer(text, np.uint8))))


def _hash_blocks(data: np.ndarray, block: int = 2**15) -> Iterator[np.ndarray]:
    for start in range(0, len(data) - WINDOW_BYTES + 1, block):  # small blocks stay in the cache
        hashes = data[start : start + block + WINDOW_BYTES - 1].astype(np.uint64) + np.uint64(1)
        factor, width = 0x9E3779B97F4A7C15, 1
        while width < WINDOW_BYTES:
            hashes = hashes[:-width] * np.uint64(factor) + hashes[width:]
            factor, width = factor * factor % 2**64, 2 * width
        hashes ^= hashes >> np.uint64(31)
        hashes *= np.uint64(0xBF58476D1CE4E5B9)
        yield hashes
