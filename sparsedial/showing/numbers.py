"""Numbers in the report's tables; a dash for a missing one."""

from __future__ import annotations

from sparsedial.records.quantities import Interval
from sparsedial.units import human_count

NONE = "–"


def count_words(value: float | None) -> str:
    """A count with its unit letter, like `1.2M`."""
    return NONE if value is None else human_count(value)


def loss_number(value: float | None) -> str:
    """A loss with four digits."""
    return NONE if value is None else f"{value:.4f}"


def with_interval(loss: Interval) -> str:
    """A loss with its interval, where it has one."""
    if loss.low is None or loss.high is None:
        return loss_number(loss.mean)
    return f"{loss.mean:.4f} ({loss.low:.4f} to {loss.high:.4f})"
