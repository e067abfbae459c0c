"""A layer that is removed is one that writes nothing; folders of the rest open everywhere, each layer of its kind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.model.checkpoint import load, model_of, save_checkpoint
from sparsedial.model.reading import read_checkpoint
from sparsedial.model.router import Routing
from sparsedial.model.transformer import Transformer
from sparsedial.model.weights import stream_of
from sparsedial.pruning.folder import write_pruned
from sparsedial.pruning.layers import (
    KeptLayers,
    block_influence,
    calibrate_layers,
    keep_layers,
    require_share_of_layers,
    without_layers_to_turn_off,
)
from sparsedial.pruning.methods import Ask
from sparsedial.shape.shape import Shape
from tests.model.shapes import FAMILIES, UNEQUAL, shaken
from tests.model.test_families import theirs_from
from tests.pruning.planted import FIRST, SECOND, text_of, with_dead_neurons
from tests.pruning.test_experts import IDS, logits
from tests.pruning.test_planted import loss, windows_of
from tests.pruning.test_scores import WINDOWS

DEEP = {
    "llama": replace(FAMILIES["llama"], layers=4),
    "mistral": replace(FAMILIES["mistral"], layers=4),
    "qwen2, windows from the third layer on": replace(
        FAMILIES["qwen2, windows from the second layer on"], layers=5, full_layers=2
    ),
    "qwen3, windows from the third layer on": replace(
        FAMILIES["qwen3, windows from the second layer on"], layers=5, full_layers=2
    ),
    "qwen2_moe, windows from the third layer on": replace(
        FAMILIES["qwen2_moe, windows from the second layer on"], layers=5, full_layers=2
    ),
    "qwen3_moe, some layers dense": replace(
        FAMILIES["qwen3_moe, some layers dense"], layers=6, dense_layers=2, dense_places=(4,)
    ),
    "glm4_moe, first layers dense": replace(FAMILIES["glm4_moe, first layer dense"], layers=5, dense_layers=2),
    "deepseek_v2": replace(FAMILIES["deepseek_v2, queries as they are"], layers=4),
    "deepseek_v3": replace(FAMILIES["deepseek_v3"], layers=5, dense_layers=2),
}


def some(shape: Shape) -> KeptLayers:
    """All but the second layer and the last one."""
    return KeptLayers(tuple(number for number in range(shape.layers - 1) if number != 1), shape.layers)


def bypassed(model: Transformer, kept: KeptLayers) -> Transformer:
    """The same model with layers that write nothing in place of those that go."""
    with torch.no_grad():
        for tensor in stream_of(model):
            gone = tensor.name.layer not in (None, *kept.layers) and tensor.name.layer < kept.of
            if gone and tensor.name.part in ("attention.output", "feed_forward.down", "experts.down", "shared.down"):
                tensor.values().zero_()
    return model


@pytest.mark.parametrize("family", ["llama", "deepseek_v3", "qwen3, windows from the third layer on"])
@torch.no_grad()
def test_influence_is_one_minus_the_mean_cosine_of_all_tokens(family):
    model = shaken(DEEP[family])
    loss_of_text, influence_L = block_influence(model, WINDOWS)
    ids_BS = WINDOWS[:, :-1]
    x_BSD, place = torch.nn.functional.embedding(ids_BS, model.embedding_VD), model.place(ids_BS)
    for number, block in enumerate(model.blocks):
        before, x_BSD = x_BSD, block(x_BSD, place, Routing())
        pairs = zip(before.flatten(0, 1).double(), x_BSD.flatten(0, 1).double(), strict=True)
        cosines = [float(one @ other / one.norm() / other.norm()) for one, other in pairs]
        assert influence_L[number] == pytest.approx(1 - np.mean(cosines), abs=1e-6)
    assert loss_of_text == pytest.approx(float(model.loss(WINDOWS)[1]), rel=1e-5)
    assert not any(block._forward_hooks for block in model.blocks), "nothing stays behind"


def test_the_identity_layer_goes_first_and_the_loss_stays(tmp_path):
    windows, model = windows_of(text_of(tmp_path / "both.txt", FIRST, SECOND)), with_dead_neurons((1, 3), layers=3)
    whole = loss(model, windows)
    assert whole < 0.6
    for keep, kept in ((2 / 3, (1, 2)), (1 / 3, (2,))):
        ask = Ask(method="block-influence", keep=keep)
        choice = calibrate_layers(model, torch.from_numpy(windows.ids_WS1), [ask])(ask)
        assert choice.kept.parts(model.shape).layers in (kept, (0, 2)), "the two identities are alike"
        assert choice.kept.share(model.shape) == pytest.approx(keep)
        smaller = model_of(choice.kept.shape(model.shape), choice.kept.stream(stream_of(model)))
        assert abs(loss(smaller, windows) - whole) < 1e-6
        assert len(choice.controls) == 3
        assert choice.scores["block-influence"].to_list()[:2] == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.parametrize("mtp_layers", [0, 1])
@pytest.mark.parametrize("family", DEEP)
@torch.no_grad()
def test_bypassed_equals_removed(family, mtp_layers):
    shape = replace(DEEP[family], mtp_layers=mtp_layers)
    kept, all_on = some(shape), logits(shaken(shape), Routing())
    removed = model_of(kept.shape(shape), kept.stream(stream_of(shaken(shape))))
    masked = logits(bypassed(shaken(shape), kept), Routing())
    for one, other, before in zip(masked, logits(removed, Routing()), all_on, strict=True):
        assert (one - other).abs().max() <= 1e-5 * one.abs().max()
        assert (one - before).abs().max() > 1e-3, "turning layers off changes nothing: the test would see no fault"


def pruned(shape: Shape, folder: Path, kept: KeptLayers, **config) -> tuple[Transformer, Path]:
    """A model's layers removed in memory, and its folder made smaller."""
    whole = shaken(shape)
    save_checkpoint(whole, folder / "whole")
    if config:
        (folder / "whole" / "sparsedial.json").unlink()
        file = folder / "whole" / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    (folder / "smaller").mkdir()
    checkpoint = read_checkpoint(folder / "whole")
    assert checkpoint.shape == shape
    write_pruned(folder / "smaller", folder / "whole", shape, checkpoint.tensors, kept)
    return model_of(kept.shape(shape), kept.stream(stream_of(whole))), folder / "smaller"


def assert_opens(model: Transformer, folder: Path) -> None:
    theirs = theirs_from(folder)(IDS).logits
    assert (model(IDS) - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    assert torch.equal(load(folder)(IDS), model(IDS))
    assert load(folder).shape == model.shape


@pytest.mark.parametrize("family", DEEP)
@torch.no_grad()
def test_transformers_opens_the_smaller_folder_and_computes_the_same(tmp_path: Path, family):
    assert_opens(*pruned(DEEP[family], tmp_path, some(DEEP[family])))


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "qwen2_moe"])
@pytest.mark.parametrize("gone", [(1,), (2, 3, 4), (0, 1)])
@torch.no_grad()
def test_each_layer_keeps_its_window_where_the_file_lists_them(tmp_path: Path, family, gone):
    shape = DEEP[f"{family}, windows from the third layer on"]
    kept = KeptLayers(tuple(number for number in range(5) if number not in gone), 5)
    kinds = ["full_attention"] * 2 + ["sliding_attention"] * 3
    model, folder = pruned(shape, tmp_path, kept, layer_types=kinds)
    assert_opens(model, folder)
    found = json.loads((folder / "config.json").read_text())
    assert found["layer_types"] == [kinds[number] for number in kept.layers]
    assert [model.shape.window_of(place) for place in range(len(kept.layers))] == [
        shape.window_of(number) for number in kept.layers
    ]


@torch.no_grad()
def test_sparse_layers_that_come_by_steps_stay_sparse(tmp_path: Path):
    """Every second layer is sparse, which no number of steps says of those that stay."""
    shape = replace(FAMILIES["qwen3_moe, some layers dense"], layers=6, dense_layers=1, dense_places=(2, 4))
    kept = KeptLayers((0, 1, 3, 4, 5), 6)
    model, folder = pruned(shape, tmp_path, kept, decoder_sparse_step=2, mlp_only_layers=[])
    assert [model.shape.is_sparse(number) for number in range(5)] == [False, True, True, False, True]
    assert_opens(model, folder)
    assert json.loads((folder / "config.json").read_text())["mlp_only_layers"] == [0, 3]


@pytest.mark.parametrize("shape", [DEEP["deepseek_v3"], UNEQUAL], ids=["deepseek_v3", "layers differ"])
@torch.no_grad()
def test_what_no_family_can_say_is_read_by_sparsedial_alone(tmp_path: Path, shape):
    """Of a sparse model only dense layers stay; or layers that differ."""
    kept = KeptLayers((0, 1), shape.layers)
    model, folder = pruned(shape, tmp_path, kept)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "sparsedial"
    assert torch.equal(load(folder)(IDS), model(IDS))
    assert load(folder).shape == model.shape


def test_multi_token_prediction_keeps_a_layer_of_its_kind_or_is_refused():
    shape = replace(DEEP["deepseek_v3"], mtp_layers=1)  # two dense layers, three sparse ones, a sparse module
    assert keep_layers(np.array([5.0, 4, 1, 2, 3]), 2, shape).layers == (0, 4)
    assert keep_layers(np.array([5.0, 4, 1, 2, 3]), 2, replace(shape, mtp_layers=0)).layers == (0, 1)
    with pytest.raises(UserError, match="no layer stays that is of the kind of the modules of multi-token prediction"):
        KeptLayers((0, 1), 5).shape(shape)


@pytest.mark.parametrize(
    ("keep", "says"),
    [(0.1, "0.1 keeps 0 of 4 layers, and at least 1 must stay"), (0.95, "0.95 of 4 layers is all of them")],
)
def test_a_share_that_keeps_no_layer_or_all_is_refused(keep, says):
    with pytest.raises(UserError, match=says) as refused:
        require_share_of_layers(DEEP["llama"], Ask(method="block-influence", keep=keep))
    assert refused.value.field == "keep"


def test_a_single_layer_cannot_be_turned_off():
    assert without_layers_to_turn_off(replace(DEEP["llama"], layers=1)) == "has a single layer"
    assert without_layers_to_turn_off(DEEP["llama"]) is None
