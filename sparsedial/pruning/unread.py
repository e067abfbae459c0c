"""Windows of which nothing was read before: what decides or teaches must not be judged on itself.

W windows, S positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

RUN = 32  # tokens in a row
MOST = 0.5  # of a window's runs; some stand in every text, like lines of spaces
AT_ONCE = 1 << 20  # tokens of a text


def unread(ids_WS1: np.ndarray, texts: Iterable[np.ndarray]) -> np.ndarray:
    """Which windows were not read: at most half of their runs of `RUN` tokens stand in these texts.

    Shorter windows are compared whole, and runs by hashes of 64 bits.

    Shapes: windows [W, S+1] and texts [n] to [W] of bool
    """
    run = min(RUN, ids_WS1.shape[1])
    weights = np.random.default_rng(0).integers(1 << 63, size=run, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    own, places = np.unique([_hashes(row, weights) for row in ids_WS1], return_inverse=True)
    read = np.zeros(len(own), dtype=bool)
    for piece in _pieces(texts, run):
        read |= np.isin(own, _hashes(piece, weights))
    return read[places].reshape(len(ids_WS1), -1).mean(axis=1) <= MOST


def _pieces(texts: Iterable[np.ndarray], run: int) -> Iterator[np.ndarray]:
    """The texts some tokens at a time; neighbours overlap, so that no run is missed."""
    for ids in texts:
        for start in range(0, len(ids) - run + 1, AT_ONCE):
            yield ids[start : start + AT_ONCE + run - 1]


def _hashes(ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of each run of as many tokens as there are weights."""
    return sliding_window_view(ids.astype(np.uint64), len(weights)) @ weights
