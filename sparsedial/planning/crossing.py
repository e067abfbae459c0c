"""The crossover: the budget from which on sparse beats dense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsedial.law.law import Law
from sparsedial.law.literature import Published
from sparsedial.planning.budget import Budget, Constraints
from sparsedial.planning.costs import Costs
from sparsedial.planning.planner import search
from sparsedial.shape.shapes import Shapes

DECADES, POINTS = 3, 25  # around a budget
MOST_SAMPLED = 100_000  # shapes times bootstrap samples: beyond, the interval would take seconds


def around(value: float) -> np.ndarray:
    """Budgets on both sides of one, rising."""
    return value * np.logspace(-DECADES, DECADES, POINTS)


def race(
    law: Law,
    shapes: Shapes,
    *,
    currency: str,
    budgets: Sequence[float] | np.ndarray,
    costs: Costs,
    constraints: Constraints | None = None,
    speaks: Published | None = None,
) -> dict[str, Any]:
    """Least dense and least sparse loss along rising budgets, and their crossover or the reason that there is none.

    The crossover is the budget from which on the best sparse shape is predicted to beat the best dense one. Its
    interval comes from those of the law's bootstrap samples that cross there; a law without samples, or a search too
    wide for them, has none.
    """
    sampled = bool(law.samples) and len(shapes) * len(law.samples) <= MOST_SAMPLED
    bounds = constraints or Constraints()
    sides = np.array(
        [
            _sides(law, shapes, Budget(currency=currency, value=float(value)), bounds, costs, speaks, sampled)
            for value in budgets
        ]
    )
    known = np.isfinite(sides[:, :, 0]).all(axis=1)
    places, gaps = np.asarray(budgets)[known], sides[known, 0] - sides[known, 1]
    cross, why = _judge(law, currency, places, gaps)
    return {
        "currency": currency,
        "budgets": places.tolist(),
        "dense_loss": sides[known, 0, 0].tolist(),
        "sparse_loss": sides[known, 1, 0].tolist(),
        "crossover": cross,
        "crossover_reason": why,
    }


def _judge(law: Law, currency: str, places: np.ndarray, gaps: np.ndarray) -> tuple[dict[str, Any] | None, str | None]:
    if not len(places):
        return None, "this law does not speak of dense and sparse models both, or no budget affords them"
    value = first_crossing(places, gaps[:, 0])
    if value is None:
        return None, f"dense is predicted to win at the largest budget looked at, {places[-1]:.3g} {currency}"
    if value <= places[0]:
        return None, f"sparse is predicted to win at every budget from {places[0]:.3g} to {places[-1]:.3g} {currency}"
    found = [cross for column in gaps[:, 1:].T if (cross := first_crossing(places, column)) is not None]
    tail = (1 - law.confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail]) if found else (None, None)
    fitted = law.fitted_range.get(currency)
    return {
        "currency": currency,
        "value": value,
        "low": None if low is None else float(low),
        "high": None if high is None else float(high),
        "within_fitted_range": bool(fitted is None or fitted[0] <= value <= fitted[1]),
    }, None


def _sides(
    law: Law,
    shapes: Shapes,
    budget: Budget,
    constraints: Constraints,
    costs: Costs,
    speaks: Published | None,
    sampled: bool,
) -> np.ndarray:
    """Least dense and least sparse loss, by the fit and then by each sample; NaN where a side has no shape.

    Shapes: to [2, 1 + samples]
    """
    found = search(law, shapes, budget, constraints, costs, speaks)
    sides = [found.allowed & (shapes.experts == 0), found.allowed & (shapes.experts > 0)]
    count = 1 + (len(law.samples) if sampled else 0)
    if not all(side.any() for side in sides):
        return np.full((2, count), np.nan)
    losses = found.loss[None]
    if sampled:
        losses = np.concatenate([losses, law.sampled_loss(**law.variables(shapes, found.tokens))])
    return np.stack([losses[:, side].min(axis=1) for side in sides])


def first_crossing(budgets: np.ndarray, gaps: np.ndarray) -> float | None:
    """The budget behind which the gap stays positive; the low end where it always is, None where it ends below."""
    if gaps[-1] <= 0:
        return None
    below = np.nonzero(gaps <= 0)[0]
    if not len(below):
        return float(budgets[0])
    left = below[-1]
    share = gaps[left] / (gaps[left] - gaps[left + 1])
    return float(np.exp(np.log(budgets[left]) + share * np.log(budgets[left + 1] / budgets[left])))
