"""Numbers in tables, with their intervals; a dash for a missing one."""

from __future__ import annotations

from sparsedial.records.prune import Quantiles
from sparsedial.records.quantities import Interval
from sparsedial.units import human_count, human_factor, with_minus

NONE = "–"
LEAST = 0.0005  # nats per token: less is shown as none


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


def interval_words(value: Interval, form: str = ".3f") -> str:
    """`2.631 [2.601, 2.660]`, a difference `+0.034 [0.028, 0.041]`; a single value has no ends."""
    return value_words(value.mean, value, form)


def value_words(value: float, ends: Interval | None, form: str = ".4f") -> str:
    """The same of a value whose interval is known beside it, or is not known."""
    if ends is None or ends.low is None or ends.high is None:
        return with_minus(f"{value:{form}}")
    plain = form.lstrip("+")
    return with_minus(f"{value:{form}} [{ends.low:{plain}}, {ends.high:{plain}}]")


def rate_words(rate: Quantiles | None) -> str:
    """`62.1 (60.4–64)` tokens a second, with three digits each."""
    if rate is None:
        return NONE
    median, low, high = map(human_factor, (rate.median, rate.p10, rate.p90))
    return f"{median} ({low}–{high})"


def grown_words(grown: Interval) -> str:
    """`+0.034 [0.028, 0.041]`, what a loss has grown by; `0` where that is less than the digits that are shown."""
    ends = (grown.mean if end is None else end for end in (grown.low, grown.mean, grown.high))
    return "0" if max(map(abs, ends)) < LEAST else interval_words(grown, "+.3f")
