"""Search over real shapes: the best predicted loss for a budget in any currency, and where sparse begins to win."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sparsedial.law.law import Law
from sparsedial.machine.profile import Profile
from sparsedial.shape.counts import active_parameters, sparsity_of, total_parameters, training_flops_per_token
from sparsedial.shape.shape import Shape

NEAR_OPTIMAL = 0.005  # of the best predicted loss
CURRENCIES = ("flops", "seconds", "joules")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A shape with the tokens that a budget buys it, and what the law says of them."""

    shape: Shape
    steps: int
    tokens: int
    predicted: dict[str, float]  # mean, low, high


def cost_per_token(shape: Shape, currency: str, profile: Profile, batch: int, context: int) -> float:
    """What one trained token costs in a currency."""
    if currency == "flops":
        return float(training_flops_per_token(shape, context))
    seconds = profile.step_seconds(shape, batch, context).value / (batch * context)
    return seconds if currency == "seconds" else seconds * profile.watts


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
    affordable = []
    for shape in shapes:
        steps = int(budget / (cost_per_token(shape, currency, profile, batch, context) * batch * context))
        if steps >= least_steps:
            affordable.append((shape, steps))
    if not affordable:
        return []
    columns = variable_columns(law, [(shape, steps * batch * context) for shape, steps in affordable])
    means = law.loss(**columns)
    lows, highs = law.interval(**columns)
    answers = [
        Answer(
            shape=shape,
            steps=steps,
            tokens=steps * batch * context,
            predicted={"mean": float(mean), "low": float(low), "high": float(high)},
        )
        for (shape, steps), mean, low, high in zip(affordable, means, lows, highs, strict=True)
    ]
    return sorted(answers, key=lambda answer: answer.predicted["mean"])


def variable_columns(law: Law, points: Sequence[tuple[Shape, float]]) -> dict[str, np.ndarray]:
    """The law's variables for many shapes with their tokens, as columns."""
    rows = [law.variables(shape, tokens) for shape, tokens in points]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


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


def crossover(
    law: Law,
    dense: Sequence[Shape],
    sparse: Sequence[Shape],
    *,
    currency: str,
    low: float,
    high: float,
    profile: Profile,
    batch: int,
    context: int,
    points: int = 25,
) -> tuple[dict[str, Any] | None, str | None]:
    """The budget from which on the best sparse shape is predicted to beat the best dense one; or None and the reason.

    Looked for between `low` and `high`. The interval comes from those of the law's bootstrap samples that have a
    crossover there.
    """
    budgets = np.geomspace(low, high, points)
    gaps = np.array(
        [
            _best_losses(law, dense, currency, budget, profile, batch, context)
            - _best_losses(law, sparse, currency, budget, profile, batch, context)
            for budget in budgets
        ]
    )
    crossings = [_first_crossing(budgets, gaps[:, place]) for place in range(gaps.shape[1])]
    if crossings[0] is None or not low < crossings[0] < high:
        if crossings[0] is None:
            return None, f"dense is predicted to win at the largest budget looked at, {high:.3g} {currency}"
        return None, f"sparse is predicted to win at every budget from {low:.3g} to {high:.3g} {currency}"
    tail = (1 - law.confidence) / 2
    found = [crossing for crossing in crossings[1:] if crossing is not None]
    bounds = np.quantile(found, [tail, 1 - tail]) if found else [math.nan, math.nan]
    fitted = law.fitted_range.get("flops", [0.0, math.inf])
    found_at = {
        "currency": currency,
        "value": float(crossings[0]),
        "low": float(bounds[0]) if found else None,
        "high": float(bounds[1]) if found else None,
        "within_fitted_range": currency != "flops" or bool(fitted[0] <= crossings[0] <= fitted[1]),
    }
    return found_at, None


def _best_losses(
    law: Law, shapes: Sequence[Shape], currency: str, budget: float, profile: Profile, batch: int, context: int
) -> np.ndarray:
    """The least loss at a budget, by the fit and then by each bootstrap sample."""
    tokens = [budget / cost_per_token(shape, currency, profile, batch, context) for shape in shapes]
    columns = variable_columns(law, list(zip(shapes, tokens, strict=True)))
    by_sample = law.sampled_loss(**columns) if law.samples else np.empty((0, len(shapes)))
    return np.concatenate([[law.loss(**columns).min()], by_sample.min(axis=1)])


def _first_crossing(budgets: np.ndarray, gaps: np.ndarray) -> float | None:
    """The budget behind which the gap stays positive; the low end where it always is, None where it ends below."""
    if gaps[-1] <= 0:
        return None
    below = np.nonzero(gaps <= 0)[0]
    if not len(below):
        return float(budgets[0])
    left = below[-1]
    share = gaps[left] / (gaps[left] - gaps[left + 1])
    return float(np.exp(np.log(budgets[left]) + share * np.log(budgets[left + 1] / budgets[left])))


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
        "shape": asdict(shape),
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
        else {"shape": asdict(rival.shape), "tokens": rival.tokens, "predicted_loss": rival.predicted},
        "crossover": cross[0],
        "crossover_reason": cross[1],
        "binding_constraints": list(bounds),
        "near_optimal": band,
        "other_laws": [],
        "warnings": list(warnings),
        "recipe": recipe,
    }
