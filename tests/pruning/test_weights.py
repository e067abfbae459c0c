"""Weights of whole models turned off: by the inputs that `transformers` sees, layer after layer; folders open."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from sparsedial.errors import UserError
from sparsedial.model.checkpoint import model_of, save_checkpoint
from sparsedial.model.reading import read_checkpoint
from sparsedial.model.router import Routing
from sparsedial.model.transformer import Transformer
from sparsedial.model.weights import stream_of, views_of
from sparsedial.pruning.cutting import RULES, Density, Squares, magnitude, wanda
from sparsedial.pruning.folder import write_pruned
from sparsedial.pruning.gather import gather
from sparsedial.pruning.inputs import note_inputs
from sparsedial.pruning.kept import Kept
from sparsedial.pruning.methods import METHODS, Ask, methods_of
from sparsedial.pruning.weights import (
    calibrate_weights,
    cut_in_turn,
    matrices,
    nothing_seen,
    require_share_of_weights,
)
from sparsedial.shape.config import load_config, tensor_rules
from sparsedial.shape.rules import written_tensors
from sparsedial.shape.shape import Shape
from sparsedial.shape.tensors import Name
from tests.model.shapes import FAMILIES, UNEQUAL, shaken
from tests.model.test_families import theirs_from
from tests.pruning.test_experts import IDS
from tests.pruning.test_scores import SPARSE_FAMILIES, WINDOWS

HALF = Density(0.5)
SOME = [
    "llama", "qwen2, windows from the second layer on", "qwen3", "qwen2_moe", "glm4_moe, first layer dense",
    "deepseek_v2, queries as they are", "deepseek_v3",
]  # fmt: skip


def inputs_of(model: Transformer):
    """What each matrix multiplies in a model that is not cut."""
    views, found, ids_BS = views_of(model), {}, WINDOWS[:, :-1]
    x_BSD, place = functional.embedding(ids_BS, model.embedding_VD), model.place(ids_BS)
    for number, block in enumerate(model.blocks):
        own = {name: views[name] for name in matrices(model.shape) if name.layer == number}
        inputs = nothing_seen(own, RULES["wanda"])
        note_inputs(block, x_BSD, place, own, inputs)
        found |= inputs
        x_BSD = block(x_BSD, place, Routing())
    return found


def seen_by_transformers(folder: Path, shape: Shape) -> dict[Name, torch.Tensor]:
    """The sum of squares of each input of each linear layer of `transformers`, by our names."""
    theirs, found = theirs_from(folder), {}
    modules = dict(theirs.named_modules())
    written = written_tensors(tensor_rules(load_config(folder), shape), shape)
    for name in matrices(shape):
        module = modules.get(written[name].theirs.removesuffix(".weight"))
        if module is not None:
            module.register_forward_pre_hook(
                lambda _, given, name=name: found.__setitem__(name, given[0].flatten(0, -2).double().square().sum(0))
            )
    theirs(WINDOWS[:, :-1])
    return found


@pytest.mark.parametrize("family", SOME)
@torch.no_grad()
def test_the_inputs_of_every_matrix_are_those_of_transformers(tmp_path: Path, family):
    model = shaken(FAMILIES[family])
    save_checkpoint(model, tmp_path / "whole")
    theirs, ours = seen_by_transformers(tmp_path / "whole", model.shape), inputs_of(model)
    assert set(ours) == set(matrices(model.shape))
    assert {name for name in ours if name.expert is None} == set(theirs), "experts are fused there"
    for name, sum_N in theirs.items():
        assert ours[name].tokens == WINDOWS[:, :-1].numel()
        torch.testing.assert_close(ours[name].sum_N, sum_N, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", SPARSE_FAMILIES)
@torch.no_grad()
def test_the_inputs_of_an_expert_are_of_the_tokens_routed_to_it(family):
    model = shaken(SPARSE_FAMILIES[family])
    found, reached = inputs_of(model), gather(model, WINDOWS).reached
    for layer, seen in reached.items():
        for part in ("gate", "up", "down"):
            counted = [found[Name(f"experts.{part}", layer, expert)].tokens for expert in range(len(seen.tokens_E))]
            assert counted == seen.tokens_E.tolist()


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("family", ["llama", "deepseek_v3"])
@torch.no_grad()
def test_each_layer_is_cut_by_its_inputs_behind_layers_that_are_cut(family, method):
    model = shaken(replace(FAMILIES[family], layers=3))
    rule = RULES[method]
    before = [view.clone() for view in views_of(model).values()]
    kept, _ = cut_in_turn(model, WINDOWS, rule, HALF)
    assert all(torch.equal(one, view) for one, view in zip(before, views_of(model).values(), strict=True))
    found = {tensor.name: tensor.values() for tensor in kept.stream(stream_of(model))}
    last = [name for name in matrices(model.shape) if name.layer == 2]
    seen = _inputs_of_layer(model_of(model.shape, list(_behind(model, kept, 2))), 2, rule)
    alone = _inputs_of_layer(model, 2, rule)
    different = 0
    for name in last:
        w_ON = views_of(model)[name]
        wanted = rule.cut(w_ON, seen[name], HALF) if seen[name].tokens else magnitude(w_ON, HALF)
        torch.testing.assert_close(found[name], wanted.float(), rtol=1e-4, atol=1e-5)
        if alone[name].tokens:
            different += not torch.allclose(rule.cut(w_ON, alone[name], HALF).float(), found[name], atol=1e-5)
    assert different, "what is cut before it changes it"


def _behind(model: Transformer, kept: Kept, layer: int):
    """The tensors of a model whose layers before one are cut."""
    whole = {tensor.name: tensor for tensor in stream_of(model)}
    for tensor in kept.stream(stream_of(model)):
        yield tensor if tensor.name.layer is not None and tensor.name.layer < layer else whole[tensor.name]


def _inputs_of_layer(model: Transformer, layer: int, rule):
    views, ids_BS = views_of(model), WINDOWS[:, :-1]
    x_BSD, place = functional.embedding(ids_BS, model.embedding_VD), model.place(ids_BS)
    for block in model.blocks[:layer]:
        x_BSD = block(x_BSD, place, Routing())
    own = {name: views[name] for name in matrices(model.shape) if name.layer == layer}
    inputs = nothing_seen(own, rule)
    note_inputs(model.blocks[layer], x_BSD, place, own, inputs)
    return inputs


def choice(model: Transformer, method: str, keep: float = 0.5, pattern: str | None = None, seed: int = 0):
    from tests.pruning.test_neurons import calmest

    ask = Ask(method=method, keep=keep, pattern=pattern, seed=seed)
    with torch.no_grad():
        return calibrate_weights(model, calmest(model), [ask])(ask)


@pytest.mark.parametrize("pattern", [None, "2:4"])
@pytest.mark.parametrize("method", methods_of("weights"))
@torch.no_grad()
def test_only_matrices_of_layers_lose_weights_and_as_many_as_is_said(method, pattern):
    model = shaken(replace(FAMILIES["llama"], mtp_layers=1))
    found = choice(model, method, pattern=pattern)
    kept, before = found.kept, {tensor.name: tensor for tensor in stream_of(model)}
    assert kept.shape(model.shape) == model.shape
    nonzero = 0
    for tensor in kept.stream(stream_of(model)):
        values = tensor.values()
        if tensor.name not in matrices(model.shape):
            assert torch.equal(values, before[tensor.name].values()), tensor.name
            continue
        nonzero += int(values.count_nonzero())
        if pattern:
            assert ((values == 0).unflatten(1, (-1, 4)).sum(2) == 2).all(), tensor.name
        if method != "sparsegpt":
            assert torch.equal(values, before[tensor.name].values() * (values != 0))
    assert kept.share(model.shape) == pytest.approx(0.5, abs=0.01)
    assert kept.parts(model.shape).weights_share == kept.share(model.shape)
    assert nonzero == sum(kept.counts.values()) == found.scores["kept"].sum()
    assert {name.part for name in matrices(model.shape)} == set(found.scores["matrix"])
    assert len(found.controls) == (0 if METHODS[method].drawn else 3)


@torch.no_grad()
def test_draws_are_the_seeds():
    model = shaken(FAMILIES["llama"])
    one, again, other = (choice(model, "random-weights", seed=seed).kept for seed in (1, 1, 2))
    values = [
        {tensor.name: tensor.values() for tensor in kept.stream(stream_of(model))} for kept in (one, again, other)
    ]
    for name in matrices(model.shape):
        assert torch.equal(values[0][name], values[1][name])
        assert not torch.equal(values[0][name], values[2][name])


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
@torch.no_grad()
def test_experts_that_no_token_reached_are_listed_and_cut_by_magnitude(method):
    model = shaken(FAMILIES["mixtral"])
    model.blocks[0].feed_forward.w_router_DE[:, 3] = 0
    model.blocks[0].feed_forward.w_router_DE[:, :2] *= 30  # one of the two always wins
    kept, unscored = cut_in_turn(model, WINDOWS[:1, :6], RULES[method], HALF)
    assert unscored
    found = {tensor.name: tensor.values() for tensor in kept.stream(stream_of(model))}
    for layer, expert in unscored:
        for part in ("gate", "up", "down"):
            name = Name(f"experts.{part}", layer, expert)
            assert torch.equal(found[name], magnitude(views_of(model)[name], HALF))


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "deepseek_v3", "qwen2_moe", "mixtral"])
@torch.no_grad()
def test_transformers_opens_the_folder_and_computes_the_same(tmp_path: Path, family, method):
    model = shaken(FAMILIES[family])
    save_checkpoint(model, tmp_path / "whole")
    kept = choice(model, method).kept
    (tmp_path / "cut").mkdir()
    tensors = read_checkpoint(tmp_path / "whole").tensors
    write_pruned(tmp_path / "cut", tmp_path / "whole", model.shape, tensors, kept)
    ours = model_of(model.shape, kept.stream(stream_of(model)))(IDS)
    theirs = theirs_from(tmp_path / "cut")(IDS).logits
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    assert (ours - model(IDS)).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
@torch.no_grad()
def test_every_tensor_keeps_its_type_and_what_is_not_changed_its_digits(method, dtype):
    model = shaken(FAMILIES["llama"])
    stored = [
        replace(tensor.mapped(lambda values: values.to(dtype) * (1 + 1e-9)), dtype=dtype) for tensor in stream_of(model)
    ]
    kept = choice(model, method).kept
    for before, after in zip(stored, kept.stream(stored), strict=True):
        assert after.values().dtype == dtype
        if method != "sparsegpt":
            assert torch.equal(after.values(), before.values() * (after.values() != 0))


def test_wanda_of_a_model_is_wanda_of_its_matrices():
    """The first layer, whose inputs nothing has changed."""
    model = shaken(UNEQUAL)
    with torch.no_grad():
        kept, _ = cut_in_turn(model, WINDOWS, RULES["wanda"], HALF)
        seen = inputs_of(model)
    found = {tensor.name: tensor.values() for tensor in kept.stream(stream_of(model))}
    for name in matrices(model.shape):
        if name.layer == 0:
            inputs = seen[name]
            assert isinstance(inputs, Squares)
            assert torch.equal(found[name], wanda(views_of(model)[name], inputs, HALF))


@pytest.mark.parametrize(
    ("keep", "pattern", "says"),
    [
        (0.3, "2:4", "pattern: 2:4 keeps 0.5 of the weights, and keep is 0.3"),
        (0.5, "2:4", "pattern: 2:4 needs groups of 4 inputs, and layers.0.attention.query has 18 inputs"),
        (0.01, None, "keep: 0.01 keeps 0 of 16 weights of an output"),
        (0.99, None, "keep: 0.99 of 16 weights of an output is all of them"),
    ],
)
def test_shares_and_patterns_that_do_not_fit_are_refused(keep, pattern, says):
    shape = FAMILIES["mistral, heads that do not divide its width"]
    with pytest.raises(UserError, match=says):
        require_share_of_weights(shape, Ask(method="wanda", keep=keep, pattern=pattern))
