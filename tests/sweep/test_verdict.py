"""The verdict: Welch's interval against known numbers, and everything that makes it undecided."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
from msgspec.structs import replace
from scipy import stats

from sparsedial.records.run import Run
from sparsedial.sweep.verdict import Pair, decide, mean_interval, nats_per_efold, welch_gap
from tests.sweep.simulation import LAW, WORLD, steady

DENSE, SPARSE = [1.90, 1.92, 1.91], [1.80, 1.81, 1.79]


@functools.cache
def models() -> dict[str, Run]:
    """A run of each family at the largest budget of a study."""
    judged = steady().judged(WORLD, 0)
    return {"dense": judged.flops.dense[0], "sparse": judged.flops.sparse[0]}


def runs(losses, flops=1e12, status="finished", family="dense"):
    return [
        replace(
            models()[family], status=status, test_loss=loss, test_bits_per_byte=loss * 1.44, flops=flops, seconds=10.0
        )
        for loss in losses
    ]


def verdict(dense=None, sparse=None, sides=(), edges=None, law=None):
    pair = Pair(dense=dense or runs(DENSE), sparse=sparse or runs(SPARSE, family="sparse"))
    return decide("flops", 1e12, pair, sides, edges, law)


def test_a_winner_at_the_edge_of_its_candidates_still_wins():
    assert verdict(edges={"sparse": "the best 8 experts size may be larger"}).winner == "sparse"


def test_a_winner_that_cost_less_than_a_loser_that_cost_more_still_wins():
    assert verdict(runs(DENSE, flops=1.2e12), runs(SPARSE, flops=0.9e12)).winner == "sparse"


def test_a_cost_off_the_budget_is_weighed_in_nats_where_a_law_says_its_worth():
    dear = runs(SPARSE, flops=1.05e12, family="sparse")
    assert verdict(sparse=dear).winner == "undecided"
    got = verdict(sparse=dear, law=LAW)
    assert got.winner == "sparse"
    worth = nats_per_efold(LAW, dear[0])
    assert got.cost_miss.worth_nats == pytest.approx(worth * np.log(1.05))
    assert 0.01 < worth < 1.0
    tight = runs([1.90, 1.905, 1.91])
    close = runs([1.895, 1.898, 1.901], flops=1.05e12, family="sparse")
    assert verdict(tight, close, law=LAW).winner == "undecided"
    assert verdict(sparse=runs(SPARSE, flops=1.2e12), law=LAW).winner == "undecided"  # too far off to weigh


def test_the_worth_of_a_cost_is_the_slope_of_the_law():
    run = models()["sparse"]
    less, more = (LAW.loss(**LAW.variables(run.shape, run.tokens * factor)) for factor in (0.999, 1.001))
    assert nats_per_efold(LAW, run) == pytest.approx((less - more) / np.log(1.001 / 0.999), rel=0.03)


def test_a_gap_that_holds_zero_hides_neither_an_unequal_cost_nor_an_open_side():
    got = verdict(runs([1.9, 2.1, 2.0], flops=0.8e12), runs([1.8, 2.1, 1.9]), ["the best dense size may be larger"])
    assert "holds 0" in got.reason
    assert "the best dense size may be larger" in got.reason
    assert "the dense runs cost 20 % less than the budget" in got.reason


def test_welchs_interval_equals_scipys():
    random = np.random.default_rng(0)
    dense, sparse = random.normal(2, 0.02, 5).tolist(), random.normal(1.9, 0.05, 4).tolist()
    expected = stats.ttest_ind(dense, sparse, equal_var=False).confidence_interval(0.95)
    gap = welch_gap(dense, sparse)
    assert (gap.low, gap.high) == pytest.approx((expected.low, expected.high))


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says():
    random = np.random.default_rng(1)
    held = 0
    for _ in range(1000):
        interval = mean_interval(random.normal(0, 1, 3).tolist())
        held += interval.low <= 0 <= interval.high
    assert 0.93 <= held / 1000 <= 0.97


def test_the_better_family_wins_where_the_interval_excludes_zero():
    assert verdict().winner == "sparse"
    assert verdict(runs(SPARSE), runs(DENSE)).winner == "dense"
    assert verdict().gap.mean == pytest.approx(0.11)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sparse": runs([1.80, 2.00, 1.90])}, "holds 0"),
        ({"sides": ["the best dense size may be larger than width 64, the last one trained"]}, "may be larger"),
        ({"edges": {"dense": "the best dense size may be larger"}}, "may be larger"),
        ({"sparse": runs(SPARSE, flops=1.2e12)}, "the sparse runs cost 20 % more than the budget"),
        ({"dense": runs(DENSE, flops=0.9e12)}, "the dense runs cost 10 % less than the budget"),
        ({"sparse": runs(SPARSE[:1])}, "fewer than two seeds"),
        ({"sparse": runs(SPARSE, status="diverged")}, "fewer than two seeds"),
    ],
)
def test_what_makes_a_verdict_undecided_is_said(changes, says):
    got = verdict(**changes)
    assert got.winner == "undecided"
    assert re.search(says, got.reason)
