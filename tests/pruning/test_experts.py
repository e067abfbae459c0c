"""An expert that is removed is an expert whose logit is minus infinity; folders of the rest open everywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsedial.model.checkpoint import load, model_of, save_checkpoint
from sparsedial.model.digests import digest_of
from sparsedial.model.reading import read_checkpoint
from sparsedial.model.router import Routing
from sparsedial.model.transformer import Transformer
from sparsedial.model.weights import stream_of
from sparsedial.pruning.counts import COUNTS, keep_best
from sparsedial.pruning.experts import KeptExperts, masks, sparse_layers, without_experts
from sparsedial.pruning.folder import write_pruned
from sparsedial.pruning.scores import random_scores
from sparsedial.records.trained_for import TrainedFor, trained_for
from sparsedial.shape.config import load_config
from sparsedial.shape.shape import Shape
from tests.model.shapes import FAMILIES, shaken
from tests.model.test_families import theirs_from
from tests.pruning.test_scores import SPARSE_FAMILIES, WINDOWS

IDS = WINDOWS[:2, :17]


def some(shape: Shape, keep: float = 0.75, budget: str = "uniform") -> KeptExperts:
    """Some experts of each layer, drawn."""
    drawn = random_scores({number: layer.experts for number, layer in sparse_layers(shape).items()}, seed=1)
    return keep_best(drawn, COUNTS[budget](drawn, shape, keep), shape.expert_groups)


def wide(shape: Shape) -> Shape:
    """With so many experts that each group can lose some and still be compared by its two best."""
    return replace(shape, experts=4 * shape.expert_groups) if shape.expert_groups > 1 else shape


def logits(model: Transformer, routing: Routing) -> list[torch.Tensor]:
    """Of the next token, and of those that multi-token prediction guesses."""
    x_BSD = model.stream(IDS[:, :-1], model.place(IDS[:, :-1]), routing)
    found = [model.logits(x_BSD, model.norm_D)]
    return found + [model.logits(x, module.norm_D) for module, x in model.predicted(x_BSD, IDS, routing)]


@pytest.mark.parametrize(("mtp_layers", "budget"), [(0, "uniform"), (1, "uniform"), (1, "global")])
@pytest.mark.parametrize("family", SPARSE_FAMILIES)
@torch.no_grad()
def test_masked_equals_removed(family, mtp_layers, budget):
    shape = replace(wide(SPARSE_FAMILIES[family]), mtp_layers=mtp_layers)
    whole, kept = shaken_far(shape), some(shape, budget=budget)
    removed = model_of(kept.shape(shape), without_experts(stream_of(whole), kept))
    masked, all_on = logits(whole, Routing(kept=masks(kept, shape))), logits(whole, Routing())
    for one, other, before in zip(masked, logits(removed, Routing()), all_on, strict=True):
        assert (one - other).abs().max() <= 1e-5 * one.abs().max()
        assert (one - before).abs().max() > 1e-3, "turning experts off changes nothing: the test would see no fault"


def shaken_far(shape: Shape) -> Transformer:
    """A model whose experts matter, and whose routing bias is as large as in released models."""
    model = shaken(shape)
    with torch.no_grad():
        for layer in model.sparse_feed_forwards:
            layer.w_out_EFD.mul_(3)
            layer.w_router_DE.mul_(2)
            if layer.bias_E is not None:
                layer.bias_E.mul_(3).add_(4.0)
    return model


def pruned(shape: Shape, folder: Path) -> tuple[Transformer, Path]:
    """A model's experts removed in memory, and its folder made smaller."""
    whole, kept = shaken_far(shape), some(shape)
    save_checkpoint(whole, folder / "whole")
    before = digest_of(folder / "whole")
    (folder / "smaller").mkdir()
    tensors = read_checkpoint(folder / "whole").tensors
    write_pruned(folder / "smaller", folder / "whole", shape, tensors, kept)
    assert digest_of(folder / "whole") == before
    return model_of(kept.shape(shape), without_experts(stream_of(whole), kept)), folder / "smaller"


@pytest.mark.parametrize("family", [name for name, shape in FAMILIES.items() if shape.experts])
@torch.no_grad()
def test_transformers_opens_the_smaller_folder_and_computes_the_same(tmp_path: Path, family):
    model, folder = pruned(wide(FAMILIES[family]), tmp_path)
    theirs = theirs_from(folder)(IDS).logits
    largest = theirs.abs().max()
    assert (model(IDS) - theirs).abs().max() <= 1e-5 * largest
    assert torch.equal(load(folder)(IDS), model(IDS))
    assert load(folder).shape == model.shape


@torch.no_grad()
def test_layers_of_different_sizes_are_read_by_sparsedial_alone(tmp_path: Path):
    model, folder = pruned(SPARSE_FAMILIES["layers differ"], tmp_path)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "sparsedial"
    assert torch.equal(load(folder)(IDS), model(IDS))


@pytest.mark.parametrize("mtp_layers", [0, 2])
@torch.no_grad()
def test_multi_token_prediction_loses_its_experts_too(tmp_path: Path, mtp_layers):
    model, folder = pruned(replace(FAMILIES["deepseek_v3"], mtp_layers=mtp_layers), tmp_path)
    again = load(folder)
    assert again.shape.mtp_layers == mtp_layers
    for one, other in zip(logits(again, Routing()), logits(model, Routing()), strict=True):
        assert torch.equal(one, other)


def test_tensors_of_experts_that_go_are_never_read():
    shape = FAMILIES["deepseek_v3"]
    kept = some(shape, 0.5)
    read: list[str] = []

    def noted(tensor):
        return tensor.mapped(lambda values: (read.append(str(tensor.name)), values)[1])

    for tensor in without_experts(map(noted, stream_of(shaken_far(shape))), kept):
        tensor.values()
    experts = {name for name in read if ".experts." in name}
    assert experts == {
        f"layers.{layer}.experts.{expert}.{part}"
        for layer, on in kept.experts.items()
        for expert in on
        for part in ("gate", "up", "down")
    }


@pytest.mark.parametrize("name", ["num_experts", "num_local_experts", "n_routed_experts"])
def test_the_count_changes_under_the_name_that_the_file_has_and_in_tables_of_it(tmp_path: Path, name):
    shape = FAMILIES["deepseek_v3"]
    save_checkpoint(shaken_far(shape), tmp_path / "whole")
    file = tmp_path / "whole" / "config.json"
    config = json.loads(file.read_text())
    count = config.pop("n_routed_experts")
    file.write_text(json.dumps({**config, name: count, "inner": {name: count, "kept": "as it is"}, "mine": [1]}))
    (tmp_path / "whole" / "sparsedial.json").unlink()
    kept = some(shape)
    (tmp_path / "smaller").mkdir()
    tensors = read_checkpoint(tmp_path / "whole").tensors
    write_pruned(tmp_path / "smaller", tmp_path / "whole", shape, tensors, kept)
    found = json.loads((tmp_path / "smaller" / "config.json").read_text())
    assert found == {**config, name: 6, "inner": {name: 6, "kept": "as it is"}, "mine": [1]}


@torch.no_grad()
def test_what_the_files_say_otherwise_than_the_configuration_is_put_right(tmp_path: Path):
    """A tied model's files hold another head, and lack the multi-token prediction that is stated."""
    shape = replace(FAMILIES["glm4_moe"], tied_embeddings=False)
    whole, kept = shaken_far(shape), some(shape)
    save_checkpoint(whole, tmp_path / "whole")
    (tmp_path / "whole" / "sparsedial.json").unlink()
    file = tmp_path / "whole" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "tie_word_embeddings": True, "num_nextn_predict_layers": 1}))
    checkpoint = read_checkpoint(tmp_path / "whole")
    (tmp_path / "smaller").mkdir()
    write_pruned(tmp_path / "smaller", tmp_path / "whole", checkpoint.shape, checkpoint.tensors, kept)
    found = json.loads((tmp_path / "smaller" / "config.json").read_text())
    assert (found["tie_word_embeddings"], found["num_nextn_predict_layers"], found["n_routed_experts"]) == (False, 0, 6)
    wanted = model_of(kept.shape(shape), kept.stream(stream_of(whole)))(IDS)
    assert torch.equal(load(tmp_path / "smaller")(IDS), wanted)
    assert (theirs_from(tmp_path / "smaller")(IDS).logits - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_every_tensor_keeps_its_type_and_its_bytes(tmp_path: Path):
    shape = FAMILIES["deepseek_v3"]
    whole, kept = shaken_far(shape), some(shape)
    biases = [layer.bias_E for layer in whole.sparse_feed_forwards]
    whole = whole.bfloat16()
    for layer, bias_E in zip(whole.sparse_feed_forwards, biases, strict=True):
        layer.bias_E = bias_E  # as in released models
    save_checkpoint(whole, tmp_path / "whole")
    (tmp_path / "smaller").mkdir()
    tensors = read_checkpoint(tmp_path / "whole").tensors
    write_pruned(tmp_path / "smaller", tmp_path / "whole", shape, tensors, kept)
    wanted = {tensor.name: tensor.values() for tensor in without_experts(tensors, kept)}
    found = {tensor.name: tensor.values() for tensor in read_checkpoint(tmp_path / "smaller").tensors}
    assert {values.dtype for values in found.values()} == {torch.bfloat16, torch.float32}
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert values.dtype == found[name].dtype
        assert torch.equal(values, found[name]), name


def test_masks_are_true_where_experts_stay():
    found = masks(KeptExperts({0: (1, 3), 1: (0,)}), replace(FAMILIES["mixtral"], experts=4))
    assert {number: on.tolist() for number, on in found.items()} == {0: [0, 1, 0, 1], 1: [1, 0, 0, 0]}
    assert all(np.asarray(on).dtype == bool for on in found.values())


@pytest.mark.parametrize("family", ["olmoe", "layers differ"])
def test_the_smaller_folder_is_trained_for_what_its_original_was_trained_for(tmp_path: Path, family):
    shape, dial = SPARSE_FAMILIES[family], TrainedFor(top_k_experts=(1, 2), by="layer")
    whole, kept = shaken_far(shape), some(shape)
    save_checkpoint(whole, tmp_path / "whole", trained_for=dial)
    (tmp_path / "smaller").mkdir()
    write_pruned(tmp_path / "smaller", tmp_path / "whole", shape, stream_of(whole), kept)
    assert trained_for(load_config(tmp_path / "smaller")) == dial
    assert load(tmp_path / "smaller").shape == kept.shape(shape)
