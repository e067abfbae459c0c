"""Experts chosen together by the output of their layer: the error, the subsets, and one by one where they are many."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from sparsedial.evaluation import scorer
from sparsedial.model.checkpoint import model_of
from sparsedial.model.router import Routing
from sparsedial.model.weights import stream_of
from sparsedial.pruning import subsets
from sparsedial.pruning.counts import uniform_counts
from sparsedial.pruning.experts import without_experts
from sparsedial.pruning.gather import gather
from sparsedial.pruning.subsets import LayerOutput, keep_nearest
from tests.model.shapes import FAMILIES
from tests.pruning.planted import FIRST, ROUTERS, SECOND, text_of, with_dead_experts
from tests.pruning.test_experts import shaken_far
from tests.pruning.test_planted import DEAD, loss, windows_of
from tests.pruning.test_scores import SPARSE_FAMILIES, WINDOWS, seen_by


@pytest.mark.parametrize("router", ROUTERS)
def test_dead_experts_go_and_the_loss_stays(tmp_path, router):
    windows, model = windows_of(text_of(tmp_path / "both.txt", FIRST, SECOND)), with_dead_experts(router, DEAD)
    reached = gather(model, torch.from_numpy(windows.ids_WS1), inputs=500).reached
    kept = keep_nearest(model, reached, uniform_counts({}, model.shape, 0.5))
    assert kept.experts == {1: tuple(expert for expert in range(8) if expert not in DEAD)}
    smaller = model_of(kept.shape(model.shape), without_experts(stream_of(model), kept))
    assert abs(loss(smaller, windows) - loss(model, windows)) < 1e-6


@pytest.mark.parametrize("family", SPARSE_FAMILIES)
@torch.no_grad()
def test_the_error_is_what_the_layer_writes_differently_without_some_experts(family):
    model = shaken_far(SPARSE_FAMILIES[family])
    for layer in model.sparse_feed_forwards:
        x_BSD = torch.randn(1, 40, model.shape.d_model, generator=torch.Generator().manual_seed(1))
        output, groups = LayerOutput(layer, x_BSD[0]), model.shape.expert_groups
        on = max(subsets.subsets(output.experts, output.experts - groups, groups), key=output.error)
        kept_E = torch.zeros(output.experts, dtype=torch.bool)
        kept_E[list(on)] = True
        less, whole = (layer._plain(x_BSD, Routing(kept=kept))[0] for kept in ({layer.layer: kept_E}, None))
        error = float((less - whole).double().square().sum())
        assert error > 1e-6
        assert output.error(on) == pytest.approx(error, rel=1e-4)
        assert output.error(range(output.experts)) == 0


@torch.no_grad()
def test_of_up_to_eight_experts_no_other_subset_is_nearer():
    model = shaken_far(FAMILIES["qwen3_moe"])
    reached = gather(model, WINDOWS, inputs=100).reached
    kept = keep_nearest(model, reached, dict.fromkeys(reached, 5))
    for layer in model.sparse_feed_forwards:
        output = LayerOutput(layer, torch.from_numpy(reached[layer.layer].inputs_TD))
        errors = {on: output.error(on) for on in combinations(range(8), 5)}
        assert errors[kept.experts[layer.layer]] == min(errors.values())


@torch.no_grad()
def test_of_more_experts_the_output_is_nearer_than_by_chance():
    model = shaken_far(replace(FAMILIES["qwen3_moe"], experts=12))
    reached = gather(model, WINDOWS, inputs=100).reached
    kept = keep_nearest(model, reached, dict.fromkeys(reached, 6))
    for layer in model.sparse_feed_forwards:
        output = LayerOutput(layer, torch.from_numpy(reached[layer.layer].inputs_TD))
        draw = np.random.default_rng(0)
        drawn = [output.error(draw.permutation(12)[:6].tolist()) for _ in range(20)]
        assert len(kept.experts[layer.layer]) == 6
        assert output.error(kept.experts[layer.layer]) < min(drawn)


class Planted:
    """An output whose error is the sum of what each missing expert writes."""

    def __init__(self, *written: float) -> None:
        self.written, self.experts = written, len(written)

    def error(self, on: Collection[int]) -> float:
        return sum(one for expert, one in enumerate(self.written) if expert not in on)


def by_error(*written: float, count: int, groups: int = 1) -> tuple[int, ...]:
    output: Any = Planted(*written)
    return subsets._nearest(output, count, groups)


def test_the_least_go_one_by_one_and_each_group_loses_equally_many():
    many = (9, 1, 8, 2, 7, 3, 6, 4, 5, 10)
    assert by_error(*many, count=4) == (0, 2, 4, 9)
    assert by_error(1, 2, 3, 4, 5, 16, 15, 14, 13, 12, count=4, groups=2) == (3, 4, 5, 6)
    assert by_error(1, 2, 3, 4, 8, 7, 6, 5, count=4, groups=2) == (2, 3, 4, 5), "of eight, too"


def test_every_subset_leaves_groups_equal():
    found = list(subsets.subsets(8, 4, 2))
    assert len(found) == len(set(found)) == 36
    assert all(sum(expert < 4 for expert in on) == 2 for on in found)


@pytest.mark.parametrize("at_once", [4096, 40])
@torch.no_grad()
def test_the_tokens_that_are_compared_are_evenly_spread(monkeypatch, at_once):
    monkeypatch.setattr(scorer, "TOKENS_AT_ONCE", at_once)
    model = shaken_far(replace(FAMILIES["qwen3_moe"], mtp_layers=0))
    inputs, reached = seen_by(model, WINDOWS), gather(model, WINDOWS, inputs=30).reached
    for number, seen in reached.items():
        np.testing.assert_allclose(seen.inputs_TD, inputs[number][::3], rtol=1e-4, atol=1e-5)
    assert all(seen.inputs_TD.size == 0 for seen in gather(model, WINDOWS).reached.values())


def test_all_experts_outputs_fit_the_memory_that_they_may_take():
    shape = replace(FAMILIES["mixtral"], d_model=4096, heads=32, head_dim=128)
    for experts in (8, 64, 256, 10**6):
        tokens = subsets.tokens_compared(replace(shape, experts=experts))
        assert 1 <= tokens <= subsets.TOKENS
        assert tokens == 1 or tokens * experts * 4096 * 4 <= subsets.OUTPUT_BYTES
