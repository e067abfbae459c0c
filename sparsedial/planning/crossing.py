"""The crossover: the budget from which on sparse beats dense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsedial.law.law import Law
from sparsedial.law.literature import Published
from sparsedial.planning.budget import Budget, Constraints
from sparsedial.planning.costs import Costs
from sparsedial.planning.fitted import beyond, states_sizes
from sparsedial.planning.planner import Search, search
from sparsedial.shape.shapes import Shapes
from sparsedial.units import human_cost

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
    wide for them, has none. It lies within the fitted range where both shapes that meet there do; null where the law
    states no sizes of its runs.
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
    cross, why = _judge(law, currency, places, gaps, f"widths {min(shapes.d_model)} to {max(shapes.d_model)}")
    if cross is not None:
        at = search(law, shapes, Budget(currency=currency, value=cross["value"]), bounds, costs, speaks)
        cross["within_fitted_range"] = _within(law, at, costs.context)
    return {
        "currency": currency,
        "budgets": places.tolist(),
        "dense_loss": sides[known, 0, 0].tolist(),
        "sparse_loss": sides[known, 1, 0].tolist(),
        "crossover": cross,
        "crossover_reason": why,
    }


def _judge(
    law: Law, currency: str, places: np.ndarray, gaps: np.ndarray, widths: str
) -> tuple[dict[str, Any] | None, str | None]:
    if not len(places):
        return None, "this law does not speak of dense and sparse models both, or no budget affords them"
    first, last = (human_cost(currency, places[end]) for end in (0, -1))
    value = first_crossing(places, gaps[:, 0])
    if value is None:
        return None, f"dense is predicted to win at the largest budget looked at, {last}, among {widths}"
    if value <= places[0]:
        return None, f"sparse is predicted to win at every budget from {first} to {last}, among {widths}"
    found = [cross for column in gaps[:, 1:].T if (cross := first_crossing(places, column)) is not None]
    tail = (1 - law.confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail]) if found else (None, None)
    return {
        "currency": currency,
        "value": value,
        "low": None if low is None else float(low),
        "high": None if high is None else float(high),
        "searched": f"{widths}, {first} to {last}",
    }, None


def _within(law: Law, at: Search, context: int) -> bool | None:
    """Whether the law was fitted on models like the best of each family; None where it does not say on which."""
    if not states_sizes(law):
        return None
    dense = at.shapes.experts == 0
    best = [place for side in (dense, ~dense) if (place := at.best(side)) is not None]
    return not any(beyond(law, at.shapes[place], float(at.tokens[place]), context) for place in best)


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
