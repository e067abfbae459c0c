"""A study's own shapes ranked for a budget in any currency, and its plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsedial.law.law import Law
from sparsedial.machine.profile import Profile
from sparsedial.planning.costs import Costs
from sparsedial.shape.counts import active_parameters, sparsity_of, total_parameters, training_flops_per_token
from sparsedial.shape.shape import Shape
from sparsedial.shape.shapes import Shapes

NEAR_OPTIMAL = 0.005  # of the best predicted loss


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A shape with the tokens that a budget buys it, and what the law says of them."""

    shape: Shape
    steps: int
    tokens: int
    predicted: dict[str, float]  # mean, low, high


def rank(
    law: Law,
    shapes: Sequence[Shape],
    *,
    currency: str,
    budget: float,
    profile: Profile,
    batch: int,
    context: int,
    least_steps: int = 1,
) -> list[Answer]:
    """An answer for every shape that the budget trains for at least `least_steps`, best predicted loss first."""
    columns = Shapes.of(shapes)
    per_token = Costs(machine=profile, batch=batch, context=context).per_token(columns, currency)
    steps = (budget / (per_token * batch * context)).astype(int)
    enough = np.flatnonzero(steps >= least_steps)
    if not len(enough):
        return []
    tokens = steps[enough] * batch * context
    variables = law.variables(columns.pick(enough), tokens)
    means = law.loss(**variables)
    lows, highs = law.interval(**variables)
    answers = [
        Answer(
            shape=shapes[int(place)],
            steps=int(steps[place]),
            tokens=int(steps[place]) * batch * context,
            predicted={"mean": float(mean), "low": float(low), "high": float(high)},
        )
        for place, mean, low, high in zip(enough, means, lows, highs, strict=True)
    ]
    return sorted(answers, key=lambda answer: answer.predicted["mean"])


def near_optimal(answers: Sequence[Answer]) -> dict[str, list[float]]:
    """The sparsities whose best answer is within 0.5 % of the best of all."""
    best = answers[0].predicted["mean"]
    levels = [answer.shape.sparsity for answer in answers if answer.predicted["mean"] <= best * (1 + NEAR_OPTIMAL)]
    return {"sparsity": [min(levels), max(levels)]}


def binding_constraints(best: Shape, shapes: Sequence[Shape]) -> list[str]:
    """The bounds of the search that the best shape sits on, in words."""
    bounds = []
    most = max(shape.experts for shape in shapes)
    if best.experts and best.experts == most:
        bounds.append(f"experts={most}: the sparsest level tried (sparsity {best.sparsity:.4g})")
    if not best.experts and most:
        bounds.append("experts=0: the dense end of the dial")
    widths = sorted({shape.d_model for shape in shapes if shape.experts == best.experts})
    if best.d_model == widths[0]:
        bounds.append(f"d_model={widths[0]}: the smallest size tried at this sparsity")
    elif best.d_model == widths[-1]:
        bounds.append(f"d_model={widths[-1]}: the largest size tried at this sparsity")
    return bounds


def plan_record(
    law: Law,
    answer: Answer,
    rival: Answer | None,
    *,
    currency: str,
    budget: float,
    profile: Profile,
    batch: int,
    context: int,
    cross: tuple[dict[str, Any] | None, str | None],
    bounds: Sequence[str],
    band: dict[str, list[float]],
    recipe: dict[str, Any],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """The answer as `plan.json` holds it; `train --plan` follows it."""
    shape = answer.shape
    seconds = profile.seconds(shape, answer.tokens, batch, context)
    return {
        "budget": {"currency": currency, "value": budget},
        "law": law.form,
        "shape": shape.record(),
        "tokens": answer.tokens,
        "total_parameters": total_parameters(shape),
        "active_parameters": active_parameters(shape),
        "sparsity": sparsity_of(shape),
        "predicted_loss": {**answer.predicted, "interval_basis": "bootstrap"},
        "costs": {
            "flops": training_flops_per_token(shape, context) * answer.tokens,
            "seconds": seconds.value,
            "joules": seconds.value * profile.watts,
            "dollars": None,
            "dollars_reason": "no price was given",
            "memory_bytes": profile.memory_bytes(shape, batch, context),
        },
        "dense_rival": None
        if rival is None
        else {"shape": rival.shape.record(), "tokens": rival.tokens, "predicted_loss": rival.predicted},
        "crossover": cross[0],
        "crossover_reason": cross[1],
        "binding_constraints": list(bounds),
        "near_optimal": band,
        "other_laws": [],
        "warnings": list(warnings),
        "recipe": recipe,
    }
