"""The crossover: the budget above which sparse beats dense."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from sparsedial.law.fence import fence
from sparsedial.law.law import Law
from sparsedial.planning.budget import Budget, Constraints
from sparsedial.planning.costs import Costs
from sparsedial.planning.fitted import beyond, states_sizes
from sparsedial.planning.planner import Search, search
from sparsedial.planning.sampled import TIE, sampled_best
from sparsedial.records.plan import Crossover, Race
from sparsedial.records.quantities import Currency
from sparsedial.shape.shapes import Shapes
from sparsedial.units import human_cost, human_percent

DECADES, POINTS = 3, 25  # around a budget


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
) -> Race:
    """The losses of the best dense and sparse shapes along increasing budgets, and their crossover or why none.

    The crossover is the budget above which the best sparse shape is predicted to beat the best dense one. Its interval
    comes from the samples of the law; there is none for a law without samples, and an end is open where that many
    samples cross below or above all budgets. `within_fitted_range` says whether both shapes at the crossover lie within
    the law's range; it is null where the law states no sizes of its runs.
    """
    bounds = constraints or Constraints()
    sides = np.array(
        [_sides(law, shapes, Budget(currency=currency, value=float(value)), bounds, costs) for value in budgets]
    )
    known = np.isfinite(sides[:, :, 0]).all(axis=1)
    amounts, gaps = np.asarray(budgets)[known], sides[known, 0] - sides[known, 1]
    gaps[np.abs(gaps) <= TIE * sides[known, 0]] = 0.0  # a tie is no win
    cross, why = _judge(law, currency, amounts, gaps, f"widths {min(shapes.d_model)} to {max(shapes.d_model)}")
    if cross is not None and states_sizes(law):
        at = search(law, shapes, Budget(currency=currency, value=cross.value), bounds, costs)
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
    """The crossover or why there is none, from gaps of dense minus sparse. Shapes: gaps [budgets, 1 + samples]"""
    if not len(amounts):
        bounds = fence(law)
        why = bounds.no_dense or bounds.no_sparse
        return None, why or "no budget affords both dense and sparse models that the law is about"
    first, last = (human_cost(currency, amounts[end]) for end in (0, -1))
    value = first_crossing(amounts, gaps[:, 0])
    sure = _sure(law, gaps)
    if value is None:
        if sure is not None and sure[1][-1] > 0:
            return None, f"even at the largest budget looked at, {last}, the law's error leaves it undecided ({widths})"
        if gaps[-1, 0] == 0:
            return None, f"neither dense nor sparse is predicted to win at the largest budget looked at, {last}"
        return None, f"dense is predicted to win at the largest budget looked at, {last}, among {widths}"
    if value <= amounts[0]:
        if sure is not None and sure[0].min() <= 0:
            undecided = amounts[sure[0] <= 0]
            ends = [human_cost(currency, undecided[end]) for end in (0, -1)]
            spans = f"at {ends[0]}" if ends[0] == ends[1] else f"from {ends[0]} to {ends[1]}"
            return None, (
                f"sparse is predicted to win at every budget from {first} to {last}, among {widths},"
                f" but {spans} that is undecided within the law's error"
            )
        return None, f"sparse is predicted to win at every budget from {first} to {last}, among {widths}"
    low, high, why = _interval(law, amounts, gaps)
    found_at = Crossover(
        currency=currency,
        value=value,
        low=low,
        high=high,
        interval_reason=why,
        searched=f"{widths}, {first} to {last}",
        within_fitted_range=None,
        within_fitted_range_reason="the law does not say how large the runs were that it was fitted on",
    )
    return found_at, None


def _sure(law: Law, gaps: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The law's interval of the gap at every budget."""
    if gaps.shape[1] == 1:
        return None
    tail = (1 - law.confidence) / 2
    low, high = np.quantile(gaps[:, 1:], [tail, 1 - tail], axis=1)
    return low, high


def _interval(law: Law, amounts: np.ndarray, gaps: np.ndarray) -> tuple[float | None, float | None, str | None]:
    """The interval of the crossover, and why an end of it is missing."""
    if gaps.shape[1] == 1:
        return None, None, "the law has no samples to take it from"
    found = [first_crossing(amounts, column) for column in gaps[:, 1:].T]
    crossed = np.array([value for value in found if value is not None])
    tail, never = (1 - law.confidence) / 2, found.count(None) / len(found)
    if never == 1:
        return None, None, "by no sample of the law do the two cross there"
    everywhere = found.count(float(amounts[0])) / len(found)
    why = []
    if everywhere > tail:
        why.append(f"by {human_percent(everywhere)} of the law's samples sparse wins at every budget looked at")
    if never > tail:
        why.append(f"by {human_percent(never)} of the law's samples dense wins at the largest budget looked at")
    low = float(np.quantile(crossed, min(1.0, tail / (1 - never)) if never > tail else tail))
    high = float(np.quantile(crossed, 1 - tail))
    return None if everywhere > tail else low, None if never > tail else high, ", ".join(why) or None


def _within(law: Law, at: Search, context: int) -> bool:
    """Whether the law was fitted on models like the best of each family."""
    dense = at.shapes.experts == 0
    best = [index for side in (dense, ~dense) if (index := at.best(side)) is not None]
    return not any(beyond(law, at.shapes[index], float(at.tokens[index]), context) for index in best)


def _sides(law: Law, shapes: Shapes, budget: Budget, constraints: Constraints, costs: Costs) -> np.ndarray:
    """The losses of the best dense and the best sparse shape, by the fit and then by each sample; NaN without a shape.

    Shapes: to [2, 1 + samples]
    """
    found = search(law, shapes, budget, constraints, costs)
    dense = shapes.experts == 0
    sides = [found.first(found.allowed & side) for side in (dense, ~dense)]
    if not all(side.any() for side in sides):
        return np.full((2, 1 + len(law.samples)), np.nan)
    return np.stack([sampled_best(law, found, side) for side in sides])


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
