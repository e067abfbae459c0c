"""Rivals at equal active parameters: the lower k is the nearest there is, and nothing wins by chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from msgspec.structs import replace as changed

from sparsedial.pruning.equal_active import lower_k, nearest_rung, sparser, winner_of
from sparsedial.records.quantities import Interval
from sparsedial.shape.counts import active_parameters
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.turned import Turned
from tests.model.shapes import FAMILIES
from tests.showing.synthetic import spread_law

LADDER = Ladder(vocab_size=256, context=32)
DEEP = replace(FAMILIES["deepseek_v3"], layers=5, experts=16, top_k=6, expert_groups=1, kept_groups=1)


def test_experts_are_taken_off_until_a_token_has_as_many_parameters():
    sparse = DEEP.layers - DEEP.dense_layers
    assert sparse == 4
    counts = [active_parameters(Turned(top_k=(k,)).shape(DEEP)) for k in range(1, 7)]
    for k, count in enumerate(counts[:-1], start=1):
        assert lower_k(DEEP, count) == Turned(top_k=(k,))
    per_expert = (counts[1] - counts[0]) // sparse
    assert lower_k(DEEP, counts[2] + per_expert) == Turned(top_k=(4, 3, 3, 3))
    assert lower_k(DEEP, counts[2] - per_expert - per_expert // 3) == Turned(top_k=(3, 3, 3, 2))
    for target in range(counts[0], counts[4], 97):
        setting = lower_k(DEEP, target)
        assert abs(active_parameters(setting.shape(DEEP)) - target) <= per_expert / 2 + 1


def test_there_is_no_lower_k_for_a_dense_model_nor_beyond_the_dial():
    assert lower_k(FAMILIES["llama"], 1000) is None
    assert lower_k(DEEP, active_parameters(DEEP)) is None
    assert lower_k(DEEP, active_parameters(Turned(top_k=(1,)).shape(DEEP)) // 2) is None
    assert lower_k(replace(DEEP, top_k=1), active_parameters(DEEP) // 2) is None


@pytest.mark.parametrize("width", [16, 40, 128])
def test_a_rung_is_found_by_its_active_parameters(width):
    assert nearest_rung(LADDER, 8, active_parameters(LADDER.shape(width, 8))).d_model == width


def test_between_the_rungs_a_rival_is_about_as_large():
    """One layer more makes the largest step; among a study's own rungs a rival of 271k had 394k."""
    for target in np.geomspace(2e4, 2e7, 40):
        assert active_parameters(nearest_rung(LADDER, 32, round(target))) == pytest.approx(target, rel=0.25)


def test_the_sparser_model_is_the_one_that_the_law_prefers_and_its_interval_that_of_a_run():
    law, target = spread_law(), active_parameters(LADDER.shape(48, 8))
    shape, loss = sparser(law, LADDER, (8, 16, 32), target, 10**6)
    assert shape.experts == 32, "more experts are better by this law"
    assert loss.mean == law.loss(**law.variables(shape, 10**6))
    assert loss.low < loss.mean < loss.high
    noisy = changed(law, rmse_log_loss=0.1)
    wide = sparser(noisy, LADDER, (8, 16, 32), target, 10**6)[1]
    assert wide.high - wide.low > 5 * (loss.high - loss.low), "a single run scatters"


def test_a_winner_lies_below_all_others_and_else_nothing_is_decided():
    def around(mean: float) -> Interval:
        return Interval(mean=mean, low=mean - 0.1, high=mean + 0.1)

    assert winner_of({"pruned": around(3), "lower_k": around(2.5), "trained_sparser": around(2.8)}) == "lower_k"
    assert winner_of({"pruned": around(3), "lower_k": around(2.7), "trained_sparser": around(2.8)}) == "undecided"
    assert winner_of({"pruned": around(2), "trained_sparser": around(2.8)}) == "pruned"
    unknown = Interval(mean=9, low=None, high=None)
    assert winner_of({"pruned": around(2), "trained_sparser": unknown}) == "undecided"
