"""Windows that were read are told from those that were not."""

from __future__ import annotations

import numpy as np

from sparsedial.pruning import unread as module
from sparsedial.pruning.unread import RUN, unread

DRAW = np.random.default_rng(0)
TEXT = DRAW.integers(0, 50_000, 1000, dtype=np.uint16)
OTHER = DRAW.integers(0, 50_000, 1000, dtype=np.uint16)


def windows(*firsts: int, size: int = 101) -> np.ndarray:
    return np.array([TEXT[first : first + size] for first in firsts], dtype=np.int64)


def test_windows_are_found_wherever_they_stand_in_a_text():
    assert unread(windows(0, 37, 500, 899), [TEXT]).tolist() == [False] * 4
    assert unread(windows(0, 37, 500, 899), [OTHER]).tolist() == [True] * 4
    assert unread(windows(0, 37, 500, 899), [OTHER, TEXT[:200]]).tolist() == [False, False, True, True]


def test_a_window_of_which_less_than_half_stands_in_a_text_counts_as_not_read():
    assert unread(windows(0), [TEXT[: RUN + 30]]).tolist() == [True]
    assert unread(windows(0), [TEXT[: RUN + 40]]).tolist() == [False]


def test_shorter_windows_are_compared_whole():
    assert unread(windows(0, 10, size=9), [TEXT[:15]]).tolist() == [False, True]


def test_long_texts_are_read_in_pieces_without_a_gap(monkeypatch):
    firsts = range(0, 900, 7)
    for at_once in (1, 3, 50):
        monkeypatch.setattr(module, "AT_ONCE", at_once)
        assert not unread(windows(*firsts), [TEXT]).any()
    assert unread(windows(0), [TEXT[: RUN - 1]]).all(), "a text that is shorter than a run"
