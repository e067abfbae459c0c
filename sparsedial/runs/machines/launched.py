"""What a launcher of workers on other machines has done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _nothing() -> None:
    """There is nothing to end."""


@dataclass(frozen=True, kw_only=True)
class Launched:
    """The number of workers that will join, and what is to be done after the study has sent them away."""

    expected: int
    end: Callable[[], None] = _nothing
