"""A neuron that is removed is a neuron that writes nothing; folders of the rest open everywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from sparsedial.errors import UserError
from sparsedial.model.checkpoint import load, model_of, save_checkpoint
from sparsedial.model.reading import read_checkpoint
from sparsedial.model.router import Routing
from sparsedial.model.transformer import Transformer
from sparsedial.model.weights import stream_of
from sparsedial.pruning.folder import write_pruned
from sparsedial.pruning.methods import Ask
from sparsedial.pruning.neurons import (
    COUNTS,
    KeptNeurons,
    calibrate_neurons,
    global_counts,
    keep_neurons,
    uniform_counts,
    watch_neurons,
    widths,
    without_neurons_to_turn_off,
)
from sparsedial.pruning.scores import random_scores
from sparsedial.shape.shape import Layer, Shape, with_layers
from tests.model.shapes import FAMILIES, UNEQUAL, shaken
from tests.pruning.planted import FIRST, SECOND, text_of, with_dead_neurons
from tests.pruning.test_experts import IDS, logits
from tests.pruning.test_layers import assert_opens
from tests.pruning.test_planted import loss, windows_of
from tests.pruning.test_scores import WINDOWS, seen_by

WITH_NEURONS = {name: shape for name, shape in FAMILIES.items() if without_neurons_to_turn_off(shape) is None}
LLAMA, V3, GATED = FAMILIES["llama"], FAMILIES["deepseek_v3"], FAMILIES["qwen2_moe"]
DEAD = (0, 5, 6, 11)


def some(shape: Shape, keep: float = 0.5, budget: str = "uniform") -> KeptNeurons:
    """Some neurons of each layer, drawn."""
    drawn = random_scores(widths(shape), seed=1)
    return keep_neurons(drawn, COUNTS[budget](drawn, shape, keep))


def silenced(model: Transformer, kept: KeptNeurons) -> Transformer:
    """The same model, in which other neurons write nothing."""
    with torch.no_grad():
        for tensor in stream_of(model):
            if tensor.name.part in ("feed_forward.down", "shared.down"):
                off = [n for n in range(tensor.size[1]) if n not in kept.neurons[tensor.name.layer]]
                tensor.values()[:, off] = 0
    return model


def test_the_families_with_dense_layers_or_several_shared_experts_have_neurons():
    assert {name.partition(",")[0] for name in WITH_NEURONS} == {
        "llama", "mistral", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "glm4_moe", "deepseek_v2", "deepseek_v3",
    }  # fmt: skip
    assert without_neurons_to_turn_off(FAMILIES["mixtral"])
    assert without_neurons_to_turn_off(replace(GATED, shared_experts=1))


@pytest.mark.parametrize("mtp_layers", [0, 1])
@pytest.mark.parametrize("family", ["llama", "deepseek_v3", "qwen2_moe"])
@torch.no_grad()
def test_the_mean_is_of_what_multiplies_the_outgoing_weights_of_every_token(family, mtp_layers):
    model = shaken(replace(FAMILIES[family], mtp_layers=mtp_layers))
    seen = watch_neurons(model, WINDOWS)
    found, norms = seen.activations, seen.norms
    assert list(found) == list(widths(model.shape))
    inputs, blocks = seen_by_all(model), model.every_block
    for number, mean_F in found.items():
        part, x_TD = blocks[number].feed_forward, inputs[number].double()
        dense = getattr(part, "shared", part)
        gate_TF, up_TF = (x_TD @ dense.w_in_DH.double()).chunk(2, 1)
        wanted_TF = functional.silu(gate_TF) * up_TF
        if family == "qwen2_moe":
            wanted_TF *= torch.sigmoid(x_TD @ part.w_shared_gate_D1.double())
        np.testing.assert_allclose(mean_F, wanted_TF.abs().mean(0), rtol=1e-4, atol=1e-8)
        np.testing.assert_allclose(norms[number], dense.w_out_FD.double().square().sum(1).sqrt(), rtol=1e-6)
        assert not part._forward_pre_hooks, "nothing stays behind"
    assert seen.loss == pytest.approx(float(model.loss(WINDOWS)[1]), rel=1e-5)


def seen_by_all(model: Transformer) -> dict[int, torch.Tensor]:
    """What each feed-forward part reads, dense ones too."""
    from sparsedial.model.attention import rms_norm

    found = seen_by(model, WINDOWS)

    def note(number):
        return lambda part, given: found.__setitem__(number, rms_norm(*given[:3]).flatten(0, 1))

    hooks = [
        block.feed_forward.register_forward_pre_hook(note(number)) for number, block in enumerate(model.every_block)
    ]
    model.loss(WINDOWS, mtp_weight=1.0 if model.predictions else 0.0)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("budget", ["uniform", "global"])
def test_dead_neurons_go_first_and_the_loss_stays(tmp_path, budget):
    windows, model = windows_of(text_of(tmp_path / "both.txt", FIRST, SECOND)), with_dead_neurons(DEAD)
    whole = loss(model, windows)
    assert whole < 0.6
    ask = Ask(method="activation", keep=2 / 3 if budget == "uniform" else 9 / 24, budget=budget)
    choice = calibrate_neurons(model, torch.from_numpy(windows.ids_WS1), [ask])(ask)
    assert choice.kept.neurons[1] == tuple(neuron for neuron in range(12) if neuron not in DEAD)
    assert len(choice.kept.neurons[0]) == (8 if budget == "uniform" else 1), "the first layer writes nothing"
    scores = choice.scores.filter(layer=1)
    assert scores.filter("kept")["neuron"].to_list() == list(choice.kept.neurons[1])
    dead = scores.filter(~scores["kept"])
    assert dead["mean_activation"].min() > scores.filter("kept")["mean_activation"].max(), "it is what they write"
    smaller = model_of(choice.kept.shape(model.shape), choice.kept.stream(stream_of(model)))
    assert abs(loss(smaller, windows) - whole) < 1e-6
    drawn = [model_of(one.shape(model.shape), one.stream(stream_of(model))) for one in choice.controls]
    assert max(loss(one, windows) for one in drawn) > whole + 0.1


@pytest.mark.parametrize(
    ("family", "mtp_layers", "budget"),
    [(family, mtp_layers, "uniform") for family in WITH_NEURONS for mtp_layers in (0, 1)]
    + [(family, 1, "global") for family, shape in WITH_NEURONS.items() if not shape.shared_experts],
)
@torch.no_grad()
def test_silenced_equals_removed(family, mtp_layers, budget):
    shape = replace(WITH_NEURONS[family], mtp_layers=mtp_layers)
    kept, all_on = some(shape, budget=budget), logits(shaken(shape), Routing())
    removed = model_of(kept.shape(shape), kept.stream(stream_of(shaken(shape))))
    masked = logits(silenced(shaken(shape), kept), Routing())
    for one, other, before in zip(masked, logits(removed, Routing()), all_on, strict=True):
        assert (one - other).abs().max() <= 1e-5 * one.abs().max()
        assert (one - before).abs().max() > 1e-3, "turning neurons off changes nothing: the test would see no fault"


def pruned(shape: Shape, folder: Path, kept: KeptNeurons) -> tuple[Transformer, Path]:
    """A model's neurons removed in memory, and its folder made smaller."""
    whole = shaken(shape)
    save_checkpoint(whole, folder / "whole")
    (folder / "smaller").mkdir()
    write_pruned(folder / "smaller", folder / "whole", shape, read_checkpoint(folder / "whole").tensors, kept)
    return model_of(kept.shape(shape), kept.stream(stream_of(whole))), folder / "smaller"


@pytest.mark.parametrize("family", WITH_NEURONS)
@torch.no_grad()
def test_transformers_opens_the_smaller_folder_and_computes_the_same(tmp_path: Path, family):
    assert_opens(*pruned(WITH_NEURONS[family], tmp_path, some(WITH_NEURONS[family])))


@torch.no_grad()
def test_layers_of_different_widths_are_read_by_sparsedial_alone(tmp_path: Path):
    shape = replace(LLAMA, mtp_layers=1)
    kept = some(shape, budget="global")
    counts = kept.parts(shape).d_ff
    assert counts[0] != counts[1]
    assert sum(counts[:2]) == 40
    assert counts[2] == max(counts), "multi-token prediction is as wide as the widest layer"
    model, folder = pruned(shape, tmp_path, kept)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "sparsedial"
    assert torch.equal(load(folder)(IDS), model(IDS))


@pytest.mark.parametrize(
    ("shape", "keep", "counts"),
    [
        (LLAMA, 0.25, {0: 10, 1: 10}),
        (LLAMA, 0.26, {0: 10, 1: 10}),
        (V3, 0.75, {0: 18, 1: 16, 2: 16}),  # 24 wide; two shared experts of 8 stay whole, for 1.5 rounds up
        (V3, 0.5, {0: 12, 1: 8, 2: 8}),
        (GATED, 0.1, {0: 8, 1: 8}),  # one shared expert stays
    ],
)
def test_each_layer_keeps_its_share_and_shared_experts_a_whole_number(shape, keep, counts):
    assert uniform_counts({}, shape, keep) == counts


def test_the_widths_of_layers_that_differ_keep_their_shares():
    shape = with_layers(UNEQUAL, [Layer(d_ff=20), Layer(d_ff=30), *UNEQUAL.own_layers[1:]])
    shape = replace(shape, shared_experts=0)
    kept = some(shape, 0.5)
    assert kept.parts(shape).d_ff == (10, 15, 0, 0, 0)
    assert [kept.shape(shape).layer(number).d_ff for number in range(3)] == [10, 15, 0]


def test_layers_compete_by_their_scores_over_their_means():
    """The second layer's scores are a thousand times as large, and its worst neurons are no worse for their layer."""
    shape = replace(LLAMA, d_ff=8)
    scores = {0: np.array([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1]), 1: 1000 * np.array([1, 1, 1, 1, 1, 1, 0.9, 0.2])}
    assert keep_neurons(scores, global_counts(scores, shape, 11 / 16)).neurons == {0: (0, 1, 2, 3), 1: tuple(range(7))}
    assert global_counts(scores, shape, 2 / 16) == {0: 1, 1: 1}, "each layer keeps one"


@pytest.mark.parametrize(
    ("shape", "keep", "budget", "says"),
    [
        (LLAMA, 0.01, "uniform", "0.01 keeps 0 of 40 neurons of a layer, and at least 1 must stay"),
        (LLAMA, 0.999, "uniform", "0.999 of 40 neurons of a layer is all of them"),
        (GATED, 0.9, "uniform", "0.9 of 2 shared experts is all of them"),
        (LLAMA, 0.01, "global", "0.01 keeps 1 of 80 neurons, and at least 2 must stay"),
        (LLAMA, 0.999, "global", "0.999 of 80 neurons is all of them"),
        (V3, 0.5, "global", "shared experts are as wide in each layer"),
    ],
)
def test_a_share_that_keeps_no_neuron_or_all_is_refused(shape, keep, budget, says):
    with pytest.raises(UserError, match=says):
        some(shape, keep, budget)


SHARED = Ask(method="activation", keep=0.5)


def test_shared_experts_that_stay_whole_are_said(tmp_path):
    model = shaken(replace(V3, shared_experts=1, vocab_size=256, d_model=16))
    model.unembedding_VD.data.mul_(0.01)  # knows as much as a guess
    with torch.no_grad():
        choice = calibrate_neurons(model, calmest(model), [SHARED])(SHARED)
    assert choice.notes == ("shared experts stayed whole: they can only become fewer, and one stays",)
    assert choice.kept.share(model.shape) == pytest.approx((12 + 8 + 8) / (24 + 8 + 8))


def calmest(model: Transformer) -> torch.Tensor:
    """Windows on which the model is no worse than a guess: each token is the likeliest after those before it."""
    ids_BS = torch.tensor([[3]])
    for _ in range(12):
        ids_BS = torch.cat([ids_BS, model(ids_BS)[:, -1:].argmax(2)], 1)
    return ids_BS
