"""The costs of a training run in words, each with its range."""

from __future__ import annotations

from collections.abc import Callable

from sparsedial.records.plan import TrainingCosts
from sparsedial.units import human_dollars, human_joules, human_seconds


def time_words(costs: TrainingCosts) -> str | None:
    """`5.2 days (3.8 days to 8.1 days)`; None without a machine."""
    return _ranged(human_seconds, costs.seconds, costs.seconds_low, costs.seconds_high)


def energy_words(costs: TrainingCosts) -> str | None:
    """`702 kWh (510 kWh to 1.1 MWh), estimated from stated watts`, or why it is unknown; None without a machine."""
    if costs.joules is None and costs.seconds is not None:
        return f"unknown: {costs.joules_reason}"
    words = _ranged(human_joules, costs.joules, costs.joules_low, costs.joules_high)
    return f"{words}, estimated from stated watts" if words and costs.joules_basis == "estimated" else words


def money_words(costs: TrainingCosts) -> str | None:
    """`$2,508 ($1,820 to $3,900)`; None without a price."""
    return _ranged(human_dollars, costs.dollars, costs.dollars_low, costs.dollars_high)


def _ranged(spell: Callable[[float], str], value: float | None, low: float | None, high: float | None) -> str | None:
    if value is None:
        return None
    return spell(value) if low is None or high is None else f"{spell(value)} ({spell(low)} to {spell(high)})"
