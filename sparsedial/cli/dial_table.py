"""The table of a measured dial: each setting with the loss that it adds, its speed, memory and energy."""

from __future__ import annotations

from sparsedial.cli.rows import Rows, aligned, lines
from sparsedial.records.dial_file import DialPoint, MeasuredDial
from sparsedial.records.prune import Quantiles
from sparsedial.records.quantities import Interval
from sparsedial.units import human_bytes, human_count, human_joules

HEADS = ("active parameters", "added loss, nats per token", "tokens/s written", "tokens/s read", "memory", "a token")


def dial_table(dial: MeasuredDial) -> str:
    """One line a setting, and where they were written."""
    points = [(_name(point, dial), _cells(point)) for point in dial.settings]
    table = aligned([HEADS, *(cells for _, cells in points)])
    rows: Rows = [("setting", table[0]), *zip((name for name, _ in points), table[1:], strict=True)]
    trained = dial.trained_for
    ks = "" if trained is None else ", ".join(map(str, trained.top_k_experts))
    return lines([*rows, *([("trained for", f"k = {ks}, by {trained.by}")] if trained else []), ("written", dial.out)])


def _name(point: DialPoint, dial: MeasuredDial) -> str:
    return f"{point.setting.name} (default)" if point.setting.name == dial.default else point.setting.name


def _cells(point: DialPoint) -> list[str]:
    costs = point.costs
    if costs is None:
        return [human_count(point.setting.active_parameters), *[""] * (len(HEADS) - 1)]
    energy = costs.joules_per_token
    return [
        human_count(point.setting.active_parameters),
        _added(point.loss_increase),
        _rate(costs.decode_tokens_per_second),
        _rate(costs.prefill_tokens_per_second),
        "" if costs.peak_memory_bytes is None else human_bytes(costs.peak_memory_bytes),
        "" if energy is None else f"{human_joules(energy.joules)}, {energy.basis}",
    ]


def _added(grown: Interval | None) -> str:
    if grown is None:
        return ""
    ends = "" if grown.low is None or grown.high is None else f" [{grown.low:+.4f}, {grown.high:+.4f}]"
    return f"{grown.mean:+.4f}{ends}"


def _rate(rate: Quantiles | None) -> str:
    return "" if rate is None else f"{rate.median:,.0f} ({rate.p10:,.0f} to {rate.p90:,.0f})"
