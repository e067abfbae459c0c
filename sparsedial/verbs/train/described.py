"""The shape and the recipe of a training run: from a plan or a model, with single settings that override them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from sparsedial.errors import UserError
from sparsedial.records.recipe import MOST_COUNT, Recipe
from sparsedial.records.trained_for import TrainedFor
from sparsedial.settings import fill
from sparsedial.shape.published import find_shape
from sparsedial.shape.shape import Shape
from sparsedial.units import human_count
from sparsedial.verbs.train.planned import Found, FoundPlan
from sparsedial.verbs.train.started import FoundStart

Values = dict[str, Any]  # settings by name; some may be missing

# One long run is worth guarding against spikes; a study leaves its short runs unguarded, as data.
RUN_DEFAULTS: Values = {"batch": 16, "spike_sigmas": 6.0}
WARMUP_SHARE = 0.05  # of the shortest run, where several runs share their first steps
NOT_FROM_PLAN = ("dtype", "seed")  # these follow from the machine and from the settings


def described(model: Found, shape: Values, recipe: Values, tokens: float | None) -> tuple[Values, Values]:
    """The given values of the shape, and the recipe's settings. Settings override the model's own values.

    Raises: UserError where no model is given, or the settings do not make a recipe.
    """
    base, planned = _of_model(model) if model is not None else ({}, {})
    if isinstance(model, FoundPlan) and tokens is None and not {"steps", "batch", "context"} & set(recipe):
        model.require_tokens()
    if isinstance(model, FoundStart):
        model.require_same(shape)
    values = {**base, **shape}
    if not values:
        raise UserError(
            "no model is given",
            hint="name a plan.json or a published model, or give <shape.d_model> and so on",
        )
    settings: Values = {**RUN_DEFAULTS, **planned, **recipe}
    settings.setdefault("context", values.get("context"))
    for name in ("batch", "context"):
        value = settings[name]
        if value is not None and not 1 <= value <= MOST_COUNT:
            raise UserError(f"{value:.3g} lies outside 1..{MOST_COUNT}", field=f"recipe.{name}")
    if tokens is not None:
        settings |= {"steps": _steps(tokens, settings, recipe)}
    for name, field in (("steps", "tokens"), ("learning_rate", "recipe.learning_rate")):
        if name not in settings:
            raise UserError(f"{name} is not set", hint=f"give <{field}>")
    return values, settings


def _of_model(model: FoundPlan | FoundStart | str) -> tuple[Values, Values]:
    """The shape and the recipe of a plan or a checkpoint, or the shape of a model."""
    if isinstance(model, str):
        return find_shape(model)[1].record(), {}
    if isinstance(model, FoundStart):
        return model.shape.record(), model.recipe
    recipe = {name: value for name, value in asdict(model.plan.recipe).items() if name not in NOT_FROM_PLAN}
    if not recipe["spike_sigmas"]:  # as plans are written; one that was edited may say more
        del recipe["spike_sigmas"]
    return model.plan.shape.record(), recipe


def _steps(tokens: float, settings: Values, recipe: Values) -> int:
    if "steps" in recipe:
        raise UserError("contradicts <recipe.steps>", hint="give only one of them", field="tokens")
    if not settings["context"]:
        raise UserError("needs a context", hint="<shape.context> 256", field="tokens")
    return max(1, round(tokens / _step_tokens(settings)))


def _step_tokens(settings: Values) -> int:
    return int(settings["batch"]) * int(settings["context"])


def recipes(settings: Values, branches: Sequence[float]) -> list[Recipe]:
    """The recipes of all runs, shortest first. They share one warm-up, so that their first steps are the same.

    Raises: UserError for a branch that is not shorter than the run, or shares no step with it.
    """
    if not branches:
        return [fill(Recipe, settings, "recipe")]
    per_step, longest = _step_tokens(settings), int(settings["steps"])
    steps = sorted({max(1, round(tokens / per_step)) for tokens in branches})
    if steps[-1] >= longest:
        raise UserError(
            f"a branch of {human_count(steps[-1] * per_step)} tokens is not shorter than the run of"
            f" {human_count(longest * per_step)}",
            hint="<tokens> is the length of the longest run",
        )
    warmup = settings.get("warmup_steps") or max(1, round(WARMUP_SHARE * steps[0]))
    filled = [
        fill(Recipe, {**settings, "steps": count, "warmup_steps": warmup}, "recipe") for count in (*steps, longest)
    ]
    shortest = filled[0]
    if not shortest.trunk_steps:
        raise UserError(
            f"a run of {human_count(shortest.tokens)} tokens by schedule={shortest.schedule},"
            f" decay_share={shortest.decay_share:g} shares no step with a longer run, so it cannot be a branch",
            hint="use schedule wsd, with a decay_share that leaves steps before the rate falls",
        )
    return filled


def with_dial(values: Values, dial: TrainedFor | None) -> Values:
    """The values of a shape; its top_k is the dial's highest number where none is given."""
    if dial is None or "top_k" in values or not values.get("experts"):
        return values
    return {**values, "top_k": min(max(dial.top_k_experts), values["experts"])}


def with_vocabulary(values: Values, vocab_size: int) -> Shape:
    """The shape; its vocabulary size is the tokenizer's where none is given.

    Raises: UserError for a vocabulary that is smaller than the tokenizer's.
    """
    shape = fill(Shape, {"vocab_size": vocab_size, **values}, "shape")
    if shape.vocab_size < vocab_size:
        raise UserError(
            f"vocab_size={shape.vocab_size} is smaller than the tokenizer's {vocab_size} tokens",
            hint="give the <tokenizer> that the plan was made for",
        )
    return shape


def table_of(value: Any, field: str, cls: type) -> Mapping[str, Any]:
    """Nested settings (`--shape.layers 4`) as a table of names and values.

    Raises: UserError where the value is not such a table.
    """
    if not isinstance(value, Mapping):
        first = fields(cls)[0].name
        raise UserError(f"'{value}' is not a table of settings", hint=f"like <{field}.{first}> 4", field=field)
    return value
