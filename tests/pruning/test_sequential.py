"""Layer after layer: each is calibrated in the model whose earlier layers are cut already."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sparsedial.model.checkpoint import model_of
from sparsedial.model.weights import stream_of
from sparsedial.pruning import choosing_experts
from sparsedial.pruning.counts import keep_best, uniform_counts
from sparsedial.pruning.experts import KeptExperts, sparse_layers, without_experts
from sparsedial.pruning.gather import gather
from sparsedial.pruning.methods import Ask
from sparsedial.pruning.scores import SCORES
from sparsedial.pruning.sequential import keep_in_turn
from tests.model.shapes import FAMILIES
from tests.pruning.test_experts import shaken_far
from tests.pruning.test_scores import WINDOWS

REAP = SCORES["reap"]


@pytest.mark.parametrize("family", ["qwen3_moe", "deepseek_v3"])
@torch.no_grad()
def test_each_layer_is_scored_behind_layers_that_are_really_cut(family):
    shape = replace(FAMILIES[family], layers=4)
    model, layers = shaken_far(shape), sparse_layers(shape)
    counts = uniform_counts({}, shape, 0.5)
    reached, kept = keep_in_turn(model, WINDOWS, REAP, counts)
    assert list(kept.experts) == list(reached) == list(layers)
    for number, layer in layers.items():
        behind = KeptExperts({n: kept.experts[n] if n < number else tuple(range(layer.experts)) for n in layers})
        cut = model_of(behind.shape(shape), without_experts(stream_of(model), behind))
        scores_E = REAP.of(gather(cut, WINDOWS).reached[number])
        np.testing.assert_allclose(REAP.of(reached[number]), scores_E, rtol=1e-4)
        assert kept.experts[number] == keep_best({number: scores_E}, {number: counts[number]}, 1).experts[number]
    last, alone = [*layers][-1], gather(model, WINDOWS).reached
    assert not np.allclose(REAP.of(alone[last]), REAP.of(reached[last]), rtol=1e-3), "what is cut before it changes it"


@torch.no_grad()
def test_modules_of_multi_token_prediction_come_last():
    model = shaken_far(replace(FAMILIES["qwen3_moe"], mtp_layers=1))
    reached, kept = keep_in_turn(model, WINDOWS, REAP, uniform_counts({}, model.shape, 0.5))
    assert [*kept.experts] == [0, 1, 2]
    assert {number: len(experts) for number, experts in kept.experts.items()} == {0: 4, 1: 4, 2: 4}
    assert (reached[2].tokens_E.sum()) == 2 * WINDOWS[:, 2:].numel()


def test_nothing_of_the_whole_model_is_gathered_for_it(monkeypatch):
    model, ask = shaken_far(FAMILIES["qwen3_moe"]), Ask(method="reap", keep=0.5, sequential=True)
    monkeypatch.setattr(choosing_experts, "require_text_is_known", lambda model, windows_WS1, shelf: None)
    _, expected = keep_in_turn(model, WINDOWS, REAP, uniform_counts({}, model.shape, 0.5))
    monkeypatch.setattr(choosing_experts, "gather", None)
    choice = choosing_experts.calibrate_experts(model, WINDOWS, [ask])(ask)
    assert choice.kept == expected
    assert len(choice.controls) == 3
