"""What the scores of experts are made of: every family's gates and outputs, exactly, in one pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from sparsedial.evaluation.scorer import Scorer
from sparsedial.model.attention import rms_norm
from sparsedial.model.router import choose
from sparsedial.model.transformer import SparseFeedForward, Transformer
from sparsedial.pruning.gather import gather
from sparsedial.pruning.methods import METHODS, methods_of
from sparsedial.pruning.scores import POWERS, SCORES, Reached, random_scores
from tests.model.shapes import FAMILIES, UNEQUAL, shaken

SPARSE_FAMILIES = {name: shape for name, shape in FAMILIES.items() if shape.experts} | {"layers differ": UNEQUAL}
WINDOWS = torch.randint(64, (5, 18), generator=torch.Generator().manual_seed(3))


def seen_by(model: Transformer, windows_WS1: Tensor) -> dict[int, Tensor]:
    """What each sparse layer reads, token by token, its norm applied."""
    found: dict[int, Tensor] = {}

    def note(layer: SparseFeedForward, given: tuple) -> None:
        x_BSD, norm_D, eps, _ = given
        found[layer.layer] = rms_norm(x_BSD, norm_D, eps).flatten(0, 1)

    hooks = [layer.register_forward_pre_hook(note) for layer in model.sparse_feed_forwards]
    model.loss(windows_WS1, mtp_weight=1.0 if model.predictions else 0.0)
    for hook in hooks:
        hook.remove()
    return found


def by_hand(layer: SparseFeedForward, x_TD: Tensor) -> dict[int, list[tuple[float, float]]]:
    """The gate and the norm of the output of every token that reaches an expert, one by one."""
    shape, found = layer.shape, {expert: [] for expert in range(layer.sizes.experts)}
    for x_D in x_TD.double():
        logits_E = x_D @ layer.w_router_DE.double()
        scores_E = logits_E.sigmoid() if shape.gate == "sigmoid" else logits_E.softmax(0)
        chosen_K = choose(scores_E[None], layer.bias_E, shape, layer.sizes.top_k)[0]
        gates_K = scores_E[chosen_K]
        if shape.normalize_gates:
            gates_K = gates_K / gates_K.sum()
        for expert, gate in zip(chosen_K.tolist(), (gates_K * shape.routed_scaling).tolist(), strict=True):
            gate_F, up_F = (x_D @ layer.w_in_EDH[expert].double()).chunk(2)
            found[expert].append(
                (gate, float(((functional.silu(gate_F) * up_F) @ layer.w_out_EFD[expert].double()).norm()))
            )
    return found


@pytest.mark.parametrize("mtp_layers", [0, 1])
@pytest.mark.parametrize("family", SPARSE_FAMILIES)
@torch.no_grad()
def test_the_sums_are_those_of_every_token_one_by_one(family, mtp_layers):
    model = shaken(replace(SPARSE_FAMILIES[family], mtp_layers=mtp_layers))
    gathered = gather(model, WINDOWS)
    inputs = seen_by(model, WINDOWS)
    assert list(gathered.reached) == [layer.layer for layer in model.sparse_feed_forwards]
    for layer in model.sparse_feed_forwards:
        reached, found = gathered.reached[layer.layer], by_hand(layer, inputs[layer.layer])
        assert reached.tokens_E.tolist() == [len(tokens) for tokens in found.values()]
        for a, b in POWERS:
            wanted = [sum(gate**a * norm**b for gate, norm in tokens) for tokens in found.values()]
            np.testing.assert_allclose(reached.sums[a, b], wanted, rtol=1e-4, atol=1e-7)


@torch.no_grad()
def test_a_model_that_is_watched_computes_what_it_computes_alone():
    model = shaken(FAMILIES["deepseek_v3, groups and YaRN"])
    assert gather(model, WINDOWS).loss == pytest.approx(Scorer(model).loss(WINDOWS) / WINDOWS[:, 1:].numel(), rel=1e-6)


def test_each_score_is_the_sum_or_the_mean_that_its_paper_says():
    reached = Reached(
        tokens_E=np.array([2, 1, 0]),
        sums={
            (0, 0): np.array([2.0, 1, 0]),
            (0, 1): np.array([6.0, 5, 0]),
            (1, 1): np.array([3.0, 4, 0]),
            (0, 2): np.array([20.0, 25, 0]),
        },
        outputs_ED=np.empty((3, 0)),
    )
    wanted = {"frequency": [2, 1], "ean": [6, 5], "reap": [1.5, 4], "man": [3, 5], "msan": [10, 25]}
    assert {name: score.of(reached)[:2].tolist() for name, score in SCORES.items()} == wanted
    assert all(np.isnan(score.of(reached)[2]) for score in SCORES.values()), "an expert without tokens has no score"
    assert all(method.source for method in METHODS.values())
    assert set(methods_of("experts")) == {*SCORES, "naee", "hc-smoe", "random"}


def test_the_random_order_is_the_seeds():
    one, again, other = (random_scores({0: 8, 3: 4}, seed) for seed in (1, 1, 2))
    assert [len(scores) for scores in one.values()] == [8, 4]
    assert all((one[layer] == again[layer]).all() and (one[layer] != other[layer]).any() for layer in one)
