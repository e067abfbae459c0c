"""What sequences of ids have in common at their beginning. It needs no PyTorch, so a scheduler without it may ask."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress, count
from operator import ne

LEAST_SHARED = 32  # ids at the beginning of several sequences; fewer are read again


def common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many ids two sequences have in common at their beginning."""
    return next(compress(count(), map(ne, first, second)), min(len(first), len(second)))
