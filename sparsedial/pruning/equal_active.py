"""Rivals of a pruned model at equal active parameters: the original at a lower k, and a sparser model by a law."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from sparsedial.errors import UserError
from sparsedial.law.law import Law
from sparsedial.records.prune import Way
from sparsedial.records.quantities import Interval
from sparsedial.shape.counts import active_parameters
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shape import Shape
from sparsedial.shape.turned import Turned

WIDTHS = range(8, 1025, 4)  # of a ladder, those between its rungs too


def lower_k(shape: Shape, target: int) -> Turned | None:
    """The setting whose tokens use as many parameters as the target, to the nearest expert; None where there is none.

    The experts that a token visits are spread evenly over the sparse layers, the first ones having one more.
    """
    sparse = [layer for layer in range(shape.layers) if shape.is_sparse(layer)]
    if not sparse:
        return None
    least = active_parameters(Turned(top_k=(1,)).shape(shape))
    most = sum(shape.layer(layer).top_k for layer in sparse)
    per_expert = (active_parameters(shape) - least) / (most - len(sparse)) if most > len(sparse) else math.inf
    visited = len(sparse) + round((target - least) / per_expert)
    if not len(sparse) <= visited < most:
        return None
    low, more = divmod(visited, len(sparse))
    return Turned(top_k=(low,) if not more else (low + 1,) * more + (low,) * (len(sparse) - more))


def sparser(law: Law, ladder: Ladder, experts: Sequence[int], target: int, tokens: int) -> tuple[Shape, Interval]:
    """The model of a study's ladder with so many active parameters that the law says is best, and a run's loss with it.

    `experts` are the numbers to choose from. The interval holds the law's uncertainty and the scatter of runs.
    """
    shapes = [nearest_rung(ladder, count, target) for count in experts]
    best = min(shapes, key=lambda shape: law.loss(**law.variables(shape, tokens)))
    variables = law.variables(best, tokens)
    low, high = law.run_interval(**variables)
    return best, Interval(mean=law.loss(**variables), low=float(low[0]), high=float(high[0]))


def nearest_rung(ladder: Ladder, experts: int, target: int) -> Shape:
    """The shape of a number of experts whose active parameters are nearest to the target."""
    return min(_shapes(ladder, experts), key=lambda shape: abs(math.log(active_parameters(shape) / target)))


def _shapes(ladder: Ladder, experts: int) -> Iterator[Shape]:
    """Those of all widths that heads of an even size fill."""
    for width in WIDTHS:
        with contextlib.suppress(UserError):
            shape = ladder.shape(width, experts)
            if shape.heads * shape.head_dim == width:
                yield shape


def winner_of(losses: Mapping[Way, Interval]) -> Way | Literal["undecided"]:
    """Whose interval lies below all others; undecided where it does not, or is not known."""
    best = min(losses, key=lambda name: losses[name].mean)
    high = losses[best].high
    lows = [losses[name].low for name in losses if name != best]
    if high is None or any(low is None or low <= high for low in lows):
        return "undecided"
    return best
