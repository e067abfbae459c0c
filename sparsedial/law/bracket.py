"""Whether the best value of a line lies inside the tried range or at one of its ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

End = Literal["smaller", "larger"]
Size = TypeVar("Size", int, float)


def end_of(value: float, tried: Iterable[float]) -> End | None:
    """The end of the tried range at which a value lies, or None where it lies inside.

    Where only one value was tried, it is the smaller end.
    """
    values = list(tried)
    if value == min(values):
        return "smaller"
    return "larger" if value == max(values) else None


def open_side(losses: Mapping[Size, float]) -> End | None:
    """The side on which the best of a line is not bracketed, or None.

    `losses` maps sizes (or rates) to losses; one that diverged is infinite and closes its side.
    """
    return end_of(min(losses, key=lambda size: losses[size]), losses)
