"""Differences on the same items: their sign, McNemar's test, groups of items, and how often chance is called sure."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sparsedial.evaluation import compare
from sparsedial.evaluation.compare import Values, difference


def values(found, groups=None) -> Values:
    numbers = range(len(found))
    return Values(metric="acc", of=dict(zip(numbers, found, strict=True)), group=dict(enumerate(groups or numbers)))


def test_a_difference_is_second_minus_first_over_items_that_both_have():
    first = Values(metric="acc", of={0: 0.0, 1: 0.0, 2: 1.0, 9: 0.0}, group={0: 0, 1: 1, 2: 2, 9: 9})
    found = difference(first, values([1.0, 1.0, 1.0, 1.0]))
    assert found is not None
    assert (found.mean, found.items) == (pytest.approx(2 / 3), 3)
    assert found.low is not None
    assert found.low <= found.mean <= found.high
    assert difference(values([1.0]), Values(metric="acc", of={5: 1.0}, group={5: 5})) is None


def test_right_and_wrong_answers_are_compared_by_mcnemars_exact_test():
    first, second = [0.0] * 10 + [1.0] * 3 + [1.0] * 20, [1.0] * 10 + [0.0] * 3 + [1.0] * 20
    found = difference(values(first), values(second))
    assert found is not None
    assert found.p_value == pytest.approx(stats.binomtest(10, 13).pvalue)
    same = difference(values(first), values(first))
    assert same is not None
    assert (same.mean, same.p_value) == (0.0, 1.0)


def test_items_of_one_document_count_once():
    """Twenty questions on each of four passages, all answered better in one model: four signs, not eighty."""
    groups = [number // 20 for number in range(80)]
    found = difference(values([0.0] * 80, groups), values([1.0] * 80, groups))
    assert found is not None
    assert found.p_value == pytest.approx(2 * 0.5**4)


def test_equal_models_are_called_different_in_one_comparison_of_twenty():
    draw, called = np.random.default_rng(0), 0
    for _ in range(300):
        first, second = draw.normal(size=(2, 40)).tolist()
        found = difference(values(first), values(second))
        assert found is not None
        called += found.p_value < 0.05
    assert 0.02 < called / 300 < 0.09


def test_the_least_p_of_few_groups_is_exact_and_not_drawn():
    for count in (3, 10):
        found = difference(values([0.0] * count), values([1.0 + number for number in range(count)]))
        assert found is not None
        assert found.p_value == 2 * 0.5**count


def test_the_p_of_few_groups_is_that_of_scipys_permutations():
    apart = np.random.default_rng(3).normal(0.4, 1.0, 9)
    found = difference(values([0.0] * 9), values(apart.tolist()))
    assert found is not None
    expected = stats.permutation_test((apart,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert found.p_value == pytest.approx(expected.pvalue)


def test_drawn_flips_agree_with_all_flips(monkeypatch):
    apart = values(np.random.default_rng(4).normal(0.4, 1.0, 12).tolist())
    exact = difference(values([0.0] * 12), apart)
    monkeypatch.setattr(compare, "EXACT_GROUPS", 0)
    drawn = difference(values([0.0] * 12), apart)
    assert exact is not None
    assert drawn is not None
    assert exact.p_value != drawn.p_value
    assert exact.p_value == pytest.approx(drawn.p_value, abs=0.02)
