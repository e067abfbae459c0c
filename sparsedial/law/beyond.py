"""How far values lie beyond the range of a law's runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sparsedial.records.quantities import Span

SLACK = 1.01  # a value this factor beyond a range counts as inside


def times_beyond(ranges: Mapping[str, Span], values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """By which factor each value lies beyond its variable's range: 1 inside. Sparsity is told by 1/(1 - sparsity)."""
    found: dict[str, np.ndarray] = {}
    for name, ends in ranges.items():
        if name not in values:
            continue
        low, high, value = (_scale(name, np.asarray(number, dtype=float)) for number in (*ends, values[name]))
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = np.fmax(low / value, value / high)
        found[name] = np.where(factor > SLACK, factor, 1.0)
    return found


def _scale(name: str, values: np.ndarray) -> np.ndarray:
    return 1 / (1 - values) if name == "sparsity" else values
