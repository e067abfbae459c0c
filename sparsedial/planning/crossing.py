"""The crossover: the budget above which sparse beats dense."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from sparsedial.law.law import Law
from sparsedial.law.literature import Published
from sparsedial.planning.budget import Budget, Constraints
from sparsedial.planning.costs import Costs
from sparsedial.planning.fitted import beyond, states_sizes
from sparsedial.planning.planner import Search, search
from sparsedial.records.plan import Crossover, Race
from sparsedial.records.quantities import Currency
from sparsedial.shape.shapes import Shapes
from sparsedial.units import human_cost

DECADES, POINTS = 3, 25  # around a budget
MOST_SAMPLED = 100_000  # shapes times bootstrap samples; with more the interval would take seconds


def around(value: float) -> np.ndarray:
    """Increasing budgets on both sides of one."""
    return value * np.logspace(-DECADES, DECADES, POINTS)


def race(
    law: Law,
    shapes: Shapes,
    *,
    currency: Currency,
    budgets: Sequence[float] | np.ndarray,
    costs: Costs,
    constraints: Constraints | None = None,
    published: Published | None = None,
) -> Race:
    """The lowest dense and sparse losses along increasing budgets, and their crossover or the reason for none.

    The crossover is the budget above which the best sparse shape is predicted to beat the best dense one. Its interval
    comes from those bootstrap samples of the law that have a crossover; there is none for a law without samples, or a
    search too wide for them. `within_fitted_range` says whether both shapes at the crossover lie within the law's
    range; it is null where the law states no sizes of its runs.
    """
    sampled = bool(law.samples) and len(shapes) * len(law.samples) <= MOST_SAMPLED
    bounds = constraints or Constraints()
    sides = np.array(
        [
            _sides(law, shapes, Budget(currency=currency, value=float(value)), bounds, costs, published, sampled)
            for value in budgets
        ]
    )
    known = np.isfinite(sides[:, :, 0]).all(axis=1)
    amounts, gaps = np.asarray(budgets)[known], sides[known, 0] - sides[known, 1]
    cross, why = _judge(law, currency, amounts, gaps, f"widths {min(shapes.d_model)} to {max(shapes.d_model)}")
    if cross is not None and states_sizes(law):
        at = search(law, shapes, Budget(currency=currency, value=cross.value), bounds, costs, published)
        cross = replace(cross, within_fitted_range=_within(law, at, costs.context), within_fitted_range_reason=None)
    return Race(
        currency=currency,
        budgets=tuple(amounts.tolist()),
        dense_loss=tuple(sides[known, 0, 0].tolist()),
        sparse_loss=tuple(sides[known, 1, 0].tolist()),
        crossover=cross,
        crossover_reason=why,
    )


def _judge(
    law: Law, currency: Currency, amounts: np.ndarray, gaps: np.ndarray, widths: str
) -> tuple[Crossover | None, str | None]:
    if not len(amounts):
        return None, "this law is not about both dense and sparse models, or no budget affords them"
    first, last = (human_cost(currency, amounts[end]) for end in (0, -1))
    value = first_crossing(amounts, gaps[:, 0])
    if value is None:
        return None, f"dense is predicted to win at the largest budget looked at, {last}, among {widths}"
    if value <= amounts[0]:
        return None, f"sparse is predicted to win at every budget from {first} to {last}, among {widths}"
    found = [cross for column in gaps[:, 1:].T if (cross := first_crossing(amounts, column)) is not None]
    tail = (1 - law.confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail]) if found else (None, None)
    found_at = Crossover(
        currency=currency,
        value=value,
        low=None if low is None else float(low),
        high=None if high is None else float(high),
        interval_reason=None if found else _no_interval(law, gaps),
        searched=f"{widths}, {first} to {last}",
        within_fitted_range=None,
        within_fitted_range_reason="the law does not say how large the runs were that it was fitted on",
    )
    return found_at, None


def _no_interval(law: Law, gaps: np.ndarray) -> str:
    if not law.samples:
        return "the law has no samples to take it from"
    if gaps.shape[1] == 1:
        return "the search is too wide to be done again for each sample of the law"
    return "by no sample of the law do the two cross there"


def _within(law: Law, at: Search, context: int) -> bool:
    """Whether the law was fitted on models like the best of each family."""
    dense = at.shapes.experts == 0
    best = [index for side in (dense, ~dense) if (index := at.best(side)) is not None]
    return not any(beyond(law, at.shapes[index], float(at.tokens[index]), context) for index in best)


def _sides(
    law: Law,
    shapes: Shapes,
    budget: Budget,
    constraints: Constraints,
    costs: Costs,
    published: Published | None,
    sampled: bool,
) -> np.ndarray:
    """The lowest dense and sparse losses, by the fit and then by each sample; NaN where a side has no shape.

    Shapes: to [2, 1 + samples]
    """
    found = search(law, shapes, budget, constraints, costs, published)
    sides = [found.allowed & (shapes.experts == 0), found.allowed & (shapes.experts > 0)]
    count = 1 + (len(law.samples) if sampled else 0)
    if not all(side.any() for side in sides):
        return np.full((2, count), np.nan)
    losses = found.loss[None]
    if sampled:
        losses = np.concatenate([losses, law.sampled_loss(**law.variables(shapes, found.tokens))])
    return np.stack([losses[:, side].min(axis=1) for side in sides])


def first_crossing(budgets: np.ndarray, gaps: np.ndarray) -> float | None:
    """The budget above which the gap stays positive; the first where it always is, None where the last gap is not."""
    if gaps[-1] <= 0:
        return None
    below = np.nonzero(gaps <= 0)[0]
    if not len(below):
        return float(budgets[0])
    left = below[-1]
    share = gaps[left] / (gaps[left] - gaps[left + 1])
    return float(np.exp(np.log(budgets[left]) + share * np.log(budgets[left + 1] / budgets[left])))
