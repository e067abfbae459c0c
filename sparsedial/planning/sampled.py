"""What a law's samples say of a search: the gap to dense, and where the optimum lies."""

from __future__ import annotations

import numpy as np

from sparsedial.law.law import Law
from sparsedial.planning.planner import Search
from sparsedial.records.plan import SampledOptimum, Winner
from sparsedial.records.quantities import Interval, Span
from sparsedial.shape.counts import active_parameters, total_parameters
from sparsedial.shape.shapes import Shapes

SIZE_STEP = 0.02  # of the log of active parameters: within it only the best shape of a sparsity is asked again
TIE = 1e-4  # of a loss; the steps between sizes alone make such differences
MOST_SAMPLED = 100_000  # shapes times samples that are asked one by one


def front(found: Search, mask: np.ndarray) -> np.ndarray:
    """Indices of the best candidate of every sparsity and size: any law close to this one has its optimum there."""
    chosen = np.flatnonzero(mask)
    ratios = np.unique(found.shapes.experts_per_choice[chosen], return_inverse=True)[1]
    sizes = np.floor(np.log(np.asarray(active_parameters(found.shapes.pick(chosen)))) / SIZE_STEP)  # type: ignore[arg-type]
    order = np.lexsort((found.goal[chosen], sizes, ratios))
    keys = np.stack([ratios, sizes])[:, order]
    firsts = np.r_[True, (np.diff(keys) != 0).any(axis=0)] if len(order) else np.zeros(0, dtype=bool)
    return chosen[order[firsts]]


def asked_again(law: Law, found: Search, mask: np.ndarray) -> np.ndarray:
    """The candidates that every sample is asked about: all of a few, else the front."""
    return np.flatnonzero(mask) if mask.sum() * len(law.samples) <= MOST_SAMPLED else front(found, mask)


def sampled_losses(law: Law, found: Search, indices: np.ndarray) -> np.ndarray:
    """Losses of some candidates by every sample. Shapes: [samples, indices]"""
    return law.sampled_loss(**law.variables(found.shapes.pick(indices), found.seen[indices]))


def span_of(law: Law, values: np.ndarray) -> Span:
    """The law's interval of values that its samples give."""
    tail = (1 - law.confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def sampled_best(law: Law, found: Search, mask: np.ndarray) -> np.ndarray:
    """The loss of the candidate that the fit calls the best: by the fit, then by each sample.

    Shapes: to [1 + samples]
    """
    best = np.flatnonzero(mask)[[int(np.argmin(found.loss[mask]))]]
    return np.r_[found.loss[best], sampled_losses(law, found, best)[:, 0]] if law.samples else found.loss[best]


def gap_to_dense(law: Law, found: Search, dense: np.ndarray, sparse: np.ndarray) -> Interval:
    """The loss of the best dense candidate minus that of the best sparse one, with the interval that samples give."""
    gaps = sampled_best(law, found, dense) - sampled_best(law, found, sparse)
    low, high = span_of(law, gaps[1:]) if law.samples else (None, None)
    return Interval(mean=float(gaps[0]), low=low, high=high)


def winner_of(gap: Interval, loss: float) -> Winner:
    """The better family; undecided within the error, and where the gap is a tie."""
    low, high = (gap.mean if end is None else end for end in (gap.low, gap.high))
    if abs(gap.mean) <= TIE * loss or low <= 0 <= high:
        return "undecided"
    return "sparse" if gap.mean > 0 else "dense"


def sampled_optimum(law: Law, found: Search) -> SampledOptimum | None:
    """Where the optimum lies by the law's samples; None without samples, or where all give the same cost."""
    mask = found.first(found.allowed)
    if not law.samples or found.goal is not found.loss:
        return None
    indices = asked_again(law, found, mask)
    return optimum_of(law, found.shapes.pick(indices), found.tokens[indices], sampled_losses(law, found, indices))


def optimum_of(law: Law, shapes: Shapes, tokens: np.ndarray, losses: np.ndarray) -> SampledOptimum:
    """Where the least of every sample's losses lies. Shapes: losses [samples, shapes]"""
    best = np.argmin(losses, axis=1)
    chosen = shapes.pick(best)
    return SampledOptimum(
        confidence=law.confidence,
        sparsity=_edges(law, chosen.sparsity),
        total_parameters=_edges(law, np.asarray(total_parameters(chosen))),  # type: ignore[arg-type]
        active_parameters=_edges(law, np.asarray(active_parameters(chosen))),  # type: ignore[arg-type]
        tokens=_edges(law, tokens[best]),
    )


def _edges(law: Law, values: np.ndarray) -> Span:
    """The interval of values that come in steps: its ends are values that occur."""
    tail = (1 - law.confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail], method="nearest")
    return float(low), float(high)
