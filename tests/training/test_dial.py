"""Which numbers of experts a run draws, what its steps learn at each, and what that costs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.model.router import same_top_k
from sparsedial.model.transformer import initialise
from sparsedial.records.trained_for import TrainedFor
from sparsedial.runs.job import Job
from sparsedial.shape.counts import training_flops_per_token
from sparsedial.shape.shape import with_top_k
from sparsedial.text.sampler import Sampler
from sparsedial.training import dial
from sparsedial.training.dial import Draws, comparable, require_dial, spared_flops
from sparsedial.training.optimizer import make_optimizers
from tests.model.shapes import FAMILIES, UNEQUAL, shaken
from tests.runs.tiny import LADDER, RECIPE
from tests.training.steps import train_steps

NUMBERS = (1, 2, 4)
SHAPE = replace(LADDER.shape(12, 8), top_k=4, layers=3)
IDS = torch.randint(64, (3, 17), generator=torch.Generator().manual_seed(0))


def draws(by: str = "step", end: str = "highest", **changes) -> Draws:
    asked = TrainedFor(top_k_experts=NUMBERS, by=by, end=end)
    return Draws(**{"dial": asked, "seed": 0, "steps": 100, "layers": 3, **changes})


@pytest.mark.parametrize(("end", "number"), [("highest", 4), ("lowest", 1)])
@pytest.mark.parametrize("by", ["step", "layer"])
def test_each_number_comes_once_in_as_many_steps_as_there_are_numbers_and_the_last_tenth_has_one(by, end, number):
    drawn = [draws(by, end).at(step) for step in range(100)]
    for layer in range(3):
        column = [each[layer] for each in drawn]
        assert all(sorted(column[at : at + 3]) == [1, 2, 4] for at in range(0, 90, 3))
        assert set(column[90:]) == {number}
    alike = sum(len(set(each)) == 1 for each in drawn[:90])
    assert alike == 90 if by == "step" else 3 < alike < 25  # of three layers one in nine steps has all alike, by chance


def test_every_order_is_drawn_about_as_often_and_neither_steps_nor_layers_nor_seeds_repeat_each_other():
    orders = Counter(tuple(draws().order(block, 0)) for block in range(6000))
    assert len(orders) == 6
    assert max(orders.values()) < 1.15 * min(orders.values())
    for one, other in (((7, 0), (8, 0)), ((7, 0), (7, 1)), ((7, 0), (0, 7))):
        same = [draws(seed=seed).order(*one) == draws(seed=seed).order(*other) for seed in range(600)]
        assert 0.1 < sum(same) / 600 < 0.25  # a sixth
    same = [draws(seed=1).order(block, 0) == draws(seed=2).order(block, 0) for block in range(600)]
    assert 0.1 < sum(same) / 600 < 0.25


def test_what_is_drawn_does_not_depend_on_what_was_asked_before(monkeypatch):
    monkeypatch.setattr(dial, "_drawn", dial._drawn.__wrapped__)  # nothing is kept
    torch.manual_seed(1)
    forward = [draws("layer").at(step) for step in range(100)]
    torch.manual_seed(2)
    backward = [draws("layer").at(step) for step in reversed(range(100))]
    assert forward == backward[::-1]


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11, 47, 100])
@pytest.mark.parametrize("by", ["step", "layer"])
@pytest.mark.parametrize("end", ["highest", "lowest"])
def test_the_counts_of_a_run_are_those_of_its_steps(by, end, steps):
    found = draws(by, end, steps=steps)
    for layer in range(3):
        counted = Counter(found.at(step)[layer] for step in range(steps))
        assert +found.counts(layer) == counted
    assert found.at(steps - 1) == (found.last,) * 3


@pytest.mark.parametrize("asked", [None, TrainedFor(top_k_experts=NUMBERS, by="step")])
@pytest.mark.parametrize("weights", [(0.0, 0.0), (0.3, 0.3), (0.3, 0.0), (0.0, 0.1)])
@pytest.mark.parametrize("steps", [1, 47, 100])
def test_a_run_costs_what_its_steps_cost(asked, weights, steps):
    """Each step by itself, as a model of that top-k is counted, with the modules that the step trains."""
    changes = dict(zip(("mtp_weight", "mtp_late_weight"), weights, strict=True))
    shape, recipe = replace(SHAPE, mtp_layers=1), replace(RECIPE, steps=steps, **changes)
    job = Job(shape=shape, recipe=recipe, text_digest="", tokenizer="", dial=asked)

    def cost(step: int) -> int:
        top_k = 4 if asked is None else Draws.of(asked, shape, recipe).at(step)[0]
        with_mtp = recipe.prediction_weight(step) > 0
        return training_flops_per_token(replace(shape, top_k=top_k), recipe.context, with_mtp)

    assert job.flops == sum(map(cost, range(steps))) * recipe.batch * recipe.context


def test_runs_of_several_seeds_cost_the_same_where_the_list_fits_the_steps():
    asked = TrainedFor(top_k_experts=NUMBERS, by="layer")
    costs = {spared_flops(asked, SHAPE, replace(RECIPE, steps=100, seed=seed)) for seed in range(5)}
    assert len(costs) == 1


def test_a_layer_that_has_fewer_experts_to_visit_spares_less():
    """Its top_k is its own, and it never visits more."""
    asked = TrainedFor(top_k_experts=(2, 3), by="step")
    recipe = replace(RECIPE, steps=100, context=8)
    twos = Draws.of(asked, UNEQUAL, recipe).counts(0)[2]
    full = training_flops_per_token(UNEQUAL, 8) - training_flops_per_token(with_top_k(UNEQUAL, 2), 8)
    assert spared_flops(asked, UNEQUAL, recipe) == twos * full * recipe.batch * recipe.context
    assert [layer.top_k for layer in with_top_k(UNEQUAL, 2).own_layers] == [0, 2, 2, 1]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("family", [name for name, shape in FAMILIES.items() if shape.experts])
def test_a_step_at_a_number_learns_what_a_model_of_that_top_k_learns(family, compiled, monkeypatch):
    """Loss, gradients by name, and load: the kept gates are those of inference at that number."""
    if not compiled:
        monkeypatch.setattr("sparsedial.kernels.native.module", None)
    shape = replace(FAMILIES[family], top_k=4, mtp_layers=1)
    model, smaller = shaken(shape), initialise(replace(shape, top_k=2), 0)
    smaller.load_state_dict(model.state_dict())
    total, entropy = model.loss(IDS, 0.3, 0.2, 0.1, same_top_k(2, shape, IDS.device))
    expected, their_entropy = smaller.loss(IDS, 0.3, 0.2, 0.1)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert entropy.item() == pytest.approx(their_entropy.item(), rel=1e-6)
    total.backward()
    expected.backward()
    for (name, one), other in zip(model.named_parameters(), smaller.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=1e-4, msg=name)
    for layer, other in zip(model.sparse_feed_forwards, smaller.sparse_feed_forwards, strict=True):
        assert torch.equal(layer.load_E, other.load_E)
    assert entropy.item() != pytest.approx(model.loss(IDS)[1].item(), rel=1e-6), "the test would see no fault"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("by", ["step", "layer"])
@pytest.mark.parametrize("step", [0, 1, 2, 39])
def test_a_step_of_the_loop_learns_at_the_numbers_that_are_drawn_for_it(small_text, by, step, dtype):
    asked, recipe = TrainedFor(top_k_experts=NUMBERS, by=by), replace(RECIPE, dtype=dtype)
    model, again = initialise(SHAPE, 0), initialise(SHAPE, 0)
    given = model, make_optimizers(model, recipe), small_text, recipe
    taken = next(train_steps(*given, start=step, dial=asked))
    sampler = Sampler(text=small_text, seed=recipe.seed, sequences=recipe.batch, context=recipe.context)
    top_k_L1 = torch.tensor(Draws.of(asked, SHAPE, recipe).at(step))[:, None]
    _, entropy = again.loss(torch.from_numpy(sampler.batch(step)), 0, 0, 0, top_k_L1)
    assert taken.loss == pytest.approx(float(entropy), rel=1e-2 if dtype == "bfloat16" else 1e-6)


@pytest.mark.parametrize("by", ["step", "layer"])
def test_a_tiny_model_learns_with_a_dial_and_its_routers_stay_balanced(small_text, by):
    asked, recipe = TrainedFor(top_k_experts=(1, 2), by=by), replace(RECIPE, steps=150)
    model = initialise(LADDER.shape(16, 8), 0)
    steps = list(train_steps(model, make_optimizers(model, recipe), small_text, recipe, dial=asked))
    assert steps[-1].loss < steps[0].loss - 1.5
    assert steps[130].balance.load.dead_experts == 0
    assert steps[130].balance.load.max_over_mean < 3
    assert steps[130].balance.bias_drift > 0


def test_losses_are_compared_with_those_of_steps_that_had_no_more_experts():
    found = draws(steps=1000)
    numbers = [found.at(step)[0] for step in range(30)]
    for at in range(10, 30):
        losses = [float(number) for number in numbers[:at]][-9:]
        assert comparable(losses, at, found) == [loss for loss in losses if loss <= numbers[at]]
    assert comparable([1.0, 2.0], 5, None) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("numbers", "shape", "says"),
    [
        ((4,), {}, "'4' is a single number"),
        ((0, 4), {}, "0 experts are none"),
        ((2, 2, 4), {}, "2,2,4 are not different numbers"),
        ((4, 2), {}, "4,2 are not different numbers, the lowest first"),
        ((2, 16), {}, "16 is more than the model's 8 experts"),
        ((2, 8), {}, "the highest number is 8, and the model's tokens visit top_k=4"),
        ((1, 2), {}, "the highest number is 2, and the model's tokens visit top_k=4"),
        ((2, 4), {"top_p": 0.9}, "with top_p=0.9 each token has its own number"),
    ],
)
def test_numbers_that_a_model_cannot_be_trained_for_are_refused(numbers, shape, says):
    with pytest.raises(UserError, match=says) as caught:
        require_dial(TrainedFor(top_k_experts=numbers, by="step"), replace(SHAPE, **shape))
    assert caught.value.field == "dial"


def test_a_dense_model_has_no_dial():
    with pytest.raises(UserError, match="a dense model has no experts"):
        require_dial(TrainedFor(top_k_experts=(1, 2), by="step"), LADDER.shape(12, 0))
