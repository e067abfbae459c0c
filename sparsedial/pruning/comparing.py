"""Methods side by side: which are beaten, and whether their order is more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from sparsedial.pruning.methods import PartName
from sparsedial.pruning.quality import Nats, too_few
from sparsedial.records.compare import Axis, MethodOrder
from sparsedial.records.evaluation import LEAST_UNITS
from sparsedial.records.quantities import Interval

BY_CHANCE = "neighbours do not all differ by more than chance"


def axis_of(parts: set[PartName]) -> Axis:
    """What to compare choices by: what gets less in all of them, if anything does.

    Without some experts a token visits as many as before, so only bytes get less; zeros take as many bytes as before.
    """
    if parts == {"weights"}:
        return "share"
    return "weight_bytes" if parts & {"experts", "weights"} else "active_parameters"


def front(points: Sequence[tuple[float, float]]) -> tuple[int, ...]:
    """The numbers of points (what stays, loss) that no other is below in one while it is not above in the other."""
    return tuple(number for number, point in enumerate(points) if not any(_beats(other, point) for other in points))


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]


def order_of(part: PartName, strength: float, losses: Mapping[str, Nats]) -> MethodOrder:
    """Methods of one part at one share by their loss on the same windows, and how far each is above the one before."""
    order = sorted(losses, key=lambda name: float(losses[name].nats_W.sum()))
    gaps = [losses[worse].above(losses[better]) for better, worse in pairwise(order)]
    windows = len(losses[order[0]].nats_W)
    resolved = all(surely_above(gap, windows) for gap in gaps)
    return MethodOrder(
        part=part,
        strength=strength,
        order=tuple(order),
        gaps=tuple(gaps),
        resolved=resolved,
        unresolved_reason=None if resolved else too_few(windows) or BY_CHANCE,
    )


def surely_above(gap: Interval, windows: int) -> bool:
    """Whether a difference over so many windows is above 0: never over too few. Without ends it is the same in all."""
    return windows >= LEAST_UNITS and (gap.mean if gap.low is None else gap.low) > 0
