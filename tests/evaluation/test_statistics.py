"""Intervals over items and over documents, and the exact test against guessing."""

from __future__ import annotations

import numpy as np
import pytest

from sparsedial.evaluation.statistics import interval, p_of_chance, p_of_chance_by_group


def test_an_interval_of_right_answers_has_the_binomials_width():
    found = interval([1.0] * 60 + [0.0] * 40, list(range(100)))
    assert found.mean == 0.6
    assert found.low == pytest.approx(0.6 - 1.96 * 0.049, abs=0.02)
    assert found.high == pytest.approx(0.6 + 1.96 * 0.049, abs=0.02)


def test_items_that_share_a_document_are_drawn_together():
    """Ten questions with one answer on each of ten passages are ten observations, not a hundred."""
    groups = [number // 10 for number in range(100)]
    right = [float(group % 2) for group in groups]
    alone, together = interval(right, list(range(100))), interval(right, groups)
    assert together.high - together.low > 2.5 * (alone.high - alone.low)


def test_an_interval_covers_the_truth_where_documents_differ():
    draw, covered = np.random.default_rng(1), 0
    for seed in range(200):
        shares = draw.beta(2, 2, 40)
        right = [float(draw.random() < share) for share in shares for _ in range(8)]
        found = interval(right, [number // 8 for number in range(320)], seed=seed)
        covered += found.low <= 0.5 <= found.high
    assert 0.90 <= covered / 200 <= 0.99


def test_one_document_gives_no_interval():
    found = interval([1.0, 0.0], ["same", "same"])
    assert (found.mean, found.low, found.high) == (0.5, None, None)


def test_groups_that_are_all_alike_give_no_interval():
    found = interval([0.0] * 8, [number // 2 for number in range(8)])
    assert (found.mean, found.low, found.high) == (0.0, None, None)


def test_a_metric_that_is_no_mean_is_made_again_of_each_draw():
    found = interval([1.0, 2.0, 3.0, 4.0], list(range(4)), max)
    assert found.mean == 4.0
    assert 2.0 <= found.low <= found.high <= 4.0


def test_guessing_is_tested_exactly():
    assert p_of_chance(10, 10, 0.5) == pytest.approx(0.5**10)
    assert p_of_chance(0, 10, 0.25) == 1.0


def test_a_model_that_guesses_whole_passages_is_rarely_called_better_than_guessing():
    """All twenty questions on a passage are right or wrong together: twelve guesses, not 240."""
    draw, groups, called = np.random.default_rng(0), np.repeat(range(12), 20), {"items": 0, "groups": 0}
    for _ in range(300):
        right = np.repeat((draw.random(12) < 0.25).astype(float), 20)
        found = p_of_chance_by_group(right.tolist(), groups.tolist(), 0.25)
        assert found is not None
        called["groups"] += found < 0.05
        called["items"] += p_of_chance(round(right.sum()), 240, 0.25) < 0.05
    assert called["groups"] / 300 < 0.07
    assert called["items"] / 300 > 0.25


def test_a_model_that_knows_many_passages_is_called_better_than_guessing():
    draw, groups = np.random.default_rng(0), np.repeat(range(12), 20).tolist()
    right = (draw.random(240) < 0.5).astype(float).tolist()
    found = p_of_chance_by_group(right, groups, 0.25)
    assert found is not None
    assert found < 1e-4


def test_items_that_share_nothing_are_tested_by_the_binomial_and_one_document_is_not_tested():
    right = [1.0, 0.0, 1.0, 1.0]
    assert p_of_chance_by_group(right, range(4), 0.25) == p_of_chance(3, 4, 0.25)
    assert p_of_chance_by_group(right, ["same"] * 4, 0.25) is None
    assert p_of_chance_by_group([1.0] * 4, ["a", "a", "b", "b"], 0.25) == pytest.approx(0.25**4)
