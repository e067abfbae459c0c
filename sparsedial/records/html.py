"""A record as a table for notebooks: a row for each value, in the unit that its name ends in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, cast

from sparsedial.units import human_bytes, human_count, human_joules, human_seconds

MOST_ITEMS = 8  # of a list that is shown whole
UNITS: Mapping[str, Callable[[float], str]] = {
    "bytes": human_bytes,
    "seconds": human_seconds,
    "joules": human_joules,
    "parameters": human_count,
    "tokens": human_count,
}


def html_table(values: Mapping[str, Any]) -> str:
    """Plain JSON values as an HTML table; a value inside another is named `outer.inner`."""
    cells = "".join(_row(name, words) for name, words in _rows(values))
    return f"<table>{cells}</table>"


def _row(name: str, words: str) -> str:
    left = 'style="text-align: left"'
    return f"<tr><th {left}>{escape(name)}</th><td {left}>{escape(words)}</td></tr>"


def _rows(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _rows(cast("Mapping[str, Any]", value), f"{before}{key}.")
        else:
            yield before + key, _words(key, value)


def _words(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        items = cast("Sequence[Any]", value)
        short = len(items) <= MOST_ITEMS and not any(isinstance(item, Mapping | list | tuple) for item in items)
        return ", ".join(_words(name, item) for item in items) if short else f"{len(items)} entries"
    if isinstance(value, int | float):
        human = UNITS.get(name.rpartition("_")[2])
        return human(value) if human else f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
    return str(value)
