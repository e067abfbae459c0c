"""A terminal's width, and records whose numbers are as long as they get."""

from __future__ import annotations

from typing import Any, TypeVar

from sparsedial.cli.tables import table_of
from sparsedial.records.record import Record, parse, plain

T = TypeVar("T", bound=Record)
COLUMNS = 100  # that a table of numbers fits into
RATES = {  # tokens a second of a small model
    "decode_tokens_per_second": {"median": 634.0, "p10": 436.0, "p90": 757.0},
    "prefill_tokens_per_second": {"median": 4083.0, "p10": 3665.0, "p90": 4922.0},
}
LOSS = {"mean": 3.773, "low": 3.561, "high": 4.061}


def widened(record: T) -> T:
    """The same record with long rates, intervals and bytes."""
    return parse(_wide(plain(record)), type(record), "wide")


def _wide(value: Any) -> Any:
    if isinstance(value, list):
        return [_wide(item) for item in value]
    if not isinstance(value, dict):
        return value
    if LOSS.keys() <= value.keys():
        return {**value, **LOSS}
    long = {"peak_memory_bytes": 1_020_000_000, "weight_bytes": 1_020_000_000, "active_parameters": 108_000_000}
    rates = {key: {**value[key], **rate} for key, rate in RATES.items() if value.get(key)}
    long = {key: size for key, size in long.items() if value.get(key) is not None}
    return {key: _wide(item) for key, item in value.items()} | long | rates


def too_wide(record: Record) -> list[str]:
    """The lines of a record's table that are too wide for a terminal; names of files and sentences are of any width."""
    lines = table_of(widened(record)).splitlines()
    words = (
        "warning",
        "note",
        "energy  ",
        "calibrated on",
        "second text",
        "written",
        "not measured",
        "recovery",
        "picture",
    )
    return [line for line in lines if len(line) > COLUMNS and not line.startswith(words)]
