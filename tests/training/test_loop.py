"""The loop learns, and says of each step what it found."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import pytest
import torch

from sparsedial.model.transformer import initialise
from sparsedial.records.recipe import Dtype
from sparsedial.text.sampler import Sampler
from sparsedial.training.optimizer import make_optimizers
from sparsedial.training.step import Taken, balance_of_routers, loads_and_biases, read
from tests.runs.tiny import LADDER, RECIPE
from tests.training.steps import train_steps


@pytest.mark.parametrize("experts", [0, 8])
def test_a_tiny_model_learns(small_text, experts):
    model = initialise(LADDER.shape(16, experts), 0)
    losses = [step.loss for step in train_steps(model, make_optimizers(model, RECIPE), small_text, RECIPE)]
    assert len(losses) == 40
    assert losses[0] == pytest.approx(math.log(256), abs=0.3)
    assert losses[-1] < losses[0] - 1.5


def test_nan_in_a_weight_ends_the_run_with_a_reason(small_text):
    model = initialise(LADDER.shape(12, 0), 0)
    with torch.no_grad():
        model.norm_D[0] = float("nan")
    steps = list(train_steps(model, make_optimizers(model, RECIPE), small_text, RECIPE))
    assert len(steps) == 1
    assert math.isnan(steps[0].loss)


@pytest.mark.parametrize(("step", "weight"), [(0, 0.3), (26, 0.3), (27, 0.1), (39, 0.1)])
def test_a_step_learns_from_multi_token_prediction_with_the_weight_of_its_place(small_text, step, weight):
    """Its gradient is that of the loss with this weight, which falls after two thirds of the steps."""
    shape = replace(LADDER.shape(12, 8), mtp_layers=1)
    model, again = initialise(shape, 0), initialise(shape, 0)
    taken = next(train_steps(model, make_optimizers(model, RECIPE), small_text, RECIPE, start=step))
    sampler = Sampler(text=small_text, seed=RECIPE.seed, sequences=RECIPE.batch, context=RECIPE.context)
    ids = torch.from_numpy(sampler.batch(step))
    total, entropy = again.loss(ids, RECIPE.balance_weight, RECIPE.z_loss_weight, weight)
    total.backward()
    norm = torch.cat([parameter.grad.flatten() for parameter in again.parameters()]).norm()
    assert taken.gradient_norm == pytest.approx(float(norm), rel=1e-5)
    assert taken.loss == float(entropy)


@pytest.mark.parametrize("changes", [{"optimizer": "muon"}, {"schedule": "cosine"}, {"width_base": 8}])
def test_a_tiny_model_learns_by_every_recipe(small_text, changes):
    model, recipe = initialise(LADDER.shape(16, 8), 0), replace(RECIPE, **changes)
    losses = [step.loss for step in train_steps(model, make_optimizers(model, recipe), small_text, recipe)]
    assert losses[-1] < losses[0] - 1.2


def test_three_hundred_steps_end_alike_in_every_type(small_text):
    """Nearer to float32 from the same seed than float32 is from seed to seed."""

    def ended(dtype: Dtype, seed: int) -> float:
        model, recipe = initialise(LADDER.shape(16, 8), seed), replace(RECIPE, steps=300, dtype=dtype, seed=seed)
        losses = [step.loss for step in train_steps(model, make_optimizers(model, recipe), small_text, recipe)]
        return statistics.fmean(losses[-30:])

    exact = [ended("float32", seed) for seed in range(3)]
    for dtype in ("bfloat16", "bfloat16_products"):
        assert ended(dtype, 0) == pytest.approx(exact[0], abs=max(exact) - min(exact)), dtype


@pytest.mark.parametrize("worst", [0, 1])
def test_the_balance_read_is_that_of_the_worst_router_and_the_farthest_bias(worst):
    model = initialise(replace(LADDER.shape(12, 8), layers=2), 0)
    layers = model.sparse_feed_forwards
    layers[worst].load_E[:] = torch.tensor([4, 4, 0, 2, 2, 2, 1, 1])
    layers[1 - worst].load_E[:] = 2
    layers[1 - worst].bias_E[3] = -0.7
    layers[worst].bias_E[5] = 0.4
    (figures,) = read([Taken(0.0, 0.0, loads_and_biases(model))])
    balance = figures.balance
    assert (balance.load.max_over_mean, balance.load.dead_experts) == (2.0, 1)
    assert 0 < balance.load.entropy < 1
    assert balance.bias_drift == pytest.approx(0.7)
    assert loads_and_biases(initialise(LADDER.shape(12, 0), 0)) is None


def test_routers_of_several_sizes_each_have_their_balance():
    model = initialise(replace(LADDER.shape(12, 8), layers=3), 0)
    layers = model.sparse_feed_forwards
    layers[1].load_E, layers[1].bias_E = torch.tensor([6, 1, 1]), torch.tensor([0.0, -0.5, 0.2])
    layers[0].load_E[:], layers[2].load_E[0] = 2, 8
    routers = loads_and_biases(model)
    assert routers is not None
    even, all_in_one, skewed = balance_of_routers(routers).tolist()
    assert (even[0], all_in_one[0], skewed[0]) == (1.0, 8.0, 2.25)
    assert (even[1], all_in_one[1], skewed[1]) == (0.0, 7.0, 0.0)
    assert (even[2], all_in_one[2], skewed[3]) == pytest.approx((1.0, 0.0, 0.5))
