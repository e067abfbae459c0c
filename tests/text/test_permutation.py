"""A permutation takes every place once and hides the order it came from."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sparsedial.text.permutation import permuted


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 97, 1000, 12_345])
def test_a_permutation_takes_every_place_once(count: int) -> None:
    for key in (0, 1, 2**64 - 1):
        assert np.array_equal(np.sort(permuted(np.arange(count), count, key)), np.arange(count))


def test_a_permutation_shows_no_trace_of_the_old_order() -> None:
    count = 10_000
    places = np.arange(count)
    keys = [permuted(places, count, key) for key in range(20)]
    correlations = [np.corrcoef(places, found)[0, 1] for found in keys]
    assert np.abs(correlations).max() < 4 / math.sqrt(count)
    steps = np.concatenate([np.diff(found) for found in keys])
    assert len(np.unique(steps)) > 15_000
    fixed = sum(int((found == places).sum()) for found in keys)  # one each is expected
    assert 5 <= fixed <= 40


def test_a_permutation_stays_as_it_was_when_runs_were_recorded() -> None:
    # a change here changes every run: raise the recipe's version with it
    assert permuted(np.arange(12), 12, key=1).tolist() == [11, 9, 5, 8, 10, 3, 1, 4, 2, 0, 7, 6]
