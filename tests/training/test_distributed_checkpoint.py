"""PyTorch's distributed checkpoint takes a model with its optimizers: what it loads trains on bit for bit."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from sparsedial.kernels import native
from sparsedial.model.transformer import Transformer, initialise
from sparsedial.records.recipe import Recipe
from sparsedial.shape.ladder import Ladder
from sparsedial.training.optimizer import CompiledAdamW, make_optimizers
from tests.training.steps import train_steps

RECIPE = Recipe(learning_rate=0.01, steps=12, batch=8, context=32)
SHAPE = Ladder(vocab_size=256, context=32).shape(16, 8)


def train(text, model: Transformer, optimizers, recipe: Recipe, start: int, stop: int) -> list[tuple[float, float]]:
    """Loss and gradient norm of the steps from `start` to `stop`."""
    steps = islice(train_steps(model, optimizers, text, recipe, start), stop - start)
    return [(step.loss, step.gradient_norm) for step in steps]


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # one process is what is meant
@pytest.mark.parametrize("kernels", ["compiled", "torch"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_goes_on_from_a_checkpoint_bit_for_bit(small_text, tmp_path: Path, monkeypatch, optimizer, kernels):
    if kernels == "torch":
        monkeypatch.setattr(native, "module", None)
    elif native.module is None:
        pytest.skip("installed without a C compiler")
    recipe = replace(RECIPE, optimizer=optimizer, width_base=8)
    model, other = initialise(SHAPE, 0), initialise(SHAPE, 1)
    optimizers, others = make_optimizers(model, recipe), make_optimizers(other, recipe)
    assert (CompiledAdamW in map(type, optimizers)) == (kernels == "compiled")
    train(small_text, model, optimizers, recipe, 0, 5)
    weights, moments = get_state_dict(model, optimizers)
    dcp.save({"model": weights, "optimizers": moments}, checkpoint_id=tmp_path, no_dist=True)
    expected = train(small_text, model, optimizers, recipe, 5, 12)

    weights, moments = get_state_dict(other, others)
    dcp.load({"model": weights, "optimizers": moments}, checkpoint_id=tmp_path, no_dist=True)
    set_state_dict(other, others, model_state_dict=weights, optim_state_dict=moments)
    assert train(small_text, other, others, recipe, 5, 12) == expected
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.skipif(native.module is None, reason="installed without a C compiler")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_flat_checkpoint_is_taken_too(small_text, optimizer):
    """Every value of a group under the name of each of its parameters, as devices that share them out store it."""
    recipe, flat = replace(RECIPE, optimizer=optimizer), StateDictOptions(flatten_optimizer_state_dict=True)
    model, other = initialise(SHAPE, 0), initialise(SHAPE, 1)
    optimizers, others = make_optimizers(model, recipe), make_optimizers(other, recipe)
    train(small_text, model, optimizers, recipe, 0, 5)
    weights, moments = copy.deepcopy(get_state_dict(model, optimizers, options=flat))
    assert all(isinstance(value, float | torch.Tensor) for value in moments.values())
    set_state_dict(other, others, model_state_dict=weights, optim_state_dict=moments, options=flat)
    assert train(small_text, other, others, recipe, 5, 12) == train(small_text, model, optimizers, recipe, 5, 12)


def test_parameters_that_never_had_a_gradient_need_a_load_that_is_not_strict(small_text):
    """Those of multi-token prediction without weight have no moments, before the checkpoint and after it."""
    recipe, shape = replace(RECIPE, mtp_weight=0.0, mtp_late_weight=0.0), replace(SHAPE, mtp_layers=1)
    model, other = initialise(shape, 0), initialise(shape, 1)
    optimizers, others = make_optimizers(model, recipe), make_optimizers(other, recipe)
    train(small_text, model, optimizers, recipe, 0, 5)
    weights, moments = copy.deepcopy(get_state_dict(model, optimizers))
    options = StateDictOptions(strict=False)
    set_state_dict(other, others, model_state_dict=weights, optim_state_dict=moments, options=options)
    assert train(small_text, other, others, recipe, 5, 12) == train(small_text, model, optimizers, recipe, 5, 12)
    assert len(others[0].state) == len(optimizers[0].state) < len(list(model.parameters()))
