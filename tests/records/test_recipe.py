"""A recipe: its schedules, its bounds, and what is none."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest

from sparsedial.errors import UserError
from sparsedial.records.recipe import Recipe

RECIPE = Recipe(learning_rate=0.01, steps=40, batch=8, context=32)


def test_the_schedule_rises_stays_and_falls():
    recipe = replace(RECIPE, steps=100)
    assert recipe.rate(0) == pytest.approx(0.01 / 5)
    assert recipe.rate(50) == 0.01
    assert recipe.rate(85) == pytest.approx(0.005)
    assert recipe.rate(99) == pytest.approx(0.01 / 30)
    assert recipe.bias_rate(10) == recipe.balance_rate
    assert recipe.bias_rate(99) == 0.0


def test_the_cosine_falls_to_a_tenth():
    recipe = replace(RECIPE, steps=100, schedule="cosine")
    assert recipe.rate(0) == pytest.approx(0.01 / 5)
    assert recipe.rate(52) == pytest.approx(0.01 * 0.55, rel=0.02)
    assert recipe.rate(99) == pytest.approx(0.001)
    assert recipe.trunk_steps == 0


def test_multi_token_prediction_weighs_less_late():
    """From two thirds of the run on, as DeepSeek-V3's."""
    recipe = replace(RECIPE, steps=100)
    assert [recipe.prediction_weight(step) for step in (0, 66, 67, 99)] == [0.3, 0.3, 0.1, 0.1]


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 0},
        {"steps": 0},
        {"dtype": "int8"},
        {"decay_share": 0.99},
        {"optimizer": "sgd"},
        {"schedule": "step"},
        {"warmup_steps": 40},
        {"learning_rate": float("inf")},
        {"steps": 10**12},
        {"beta1": 1.5},
        {"seed": -1},
        {"seed": 2**63},
        {"schedule": "cosine", "warmup_share": 1, "decay_share": 0},
    ],
)
def test_impossible_recipes_are_refused(changes):
    with pytest.raises(UserError, match="recipe"):
        replace(RECIPE, **changes)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, 1e99])
@pytest.mark.parametrize("name", [field.name for field in fields(Recipe) if field.type in ("float", "int")])
def test_no_number_of_a_recipe_is_negative_infinite_or_none(name, value):
    with pytest.raises(UserError, match=f"recipe: {name}="):
        replace(RECIPE, **{name: value})


@pytest.mark.parametrize("changes", [{"decay_share": 0, "warmup_share": 1}, {"warmup_steps": 39}, {"seed": 2**62 - 1}])
def test_recipes_on_the_bounds_have_a_rate_at_every_step(changes):
    for schedule in ("wsd", "cosine") if "warmup_share" not in changes else ("wsd",):
        recipe = replace(RECIPE, schedule=schedule, **changes)
        assert all(0 < recipe.rate(step) <= recipe.learning_rate for step in range(recipe.steps))
