"""Rows of a table in plain text, and the words that several tables share."""

from __future__ import annotations

from collections.abc import Sequence

from sparsedial.records.quantities import Span
from sparsedial.units import human_percent

Rows = Sequence[tuple[str, str]]  # a label and its text


def lines(rows: Rows) -> str:
    """The rows as text, with the labels in one column."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in rows)


def span_words(span: Span) -> str:
    """`0.75 to 0.9375`, or `0.9375 alone` where both ends are equal."""
    low, high = (f"{end:.4g}" for end in span)
    return f"{low} alone" if low == high else f"{low} to {high}"


def errors_words(median: float, largest: float) -> str:
    """A median error and the largest."""
    return f"{human_percent(median, 3)} in the median, {human_percent(largest, 3)} at worst"


def under(head: str, words: Sequence[str]) -> Rows:
    """Lines under one head, which stands at the first."""
    return [("" if number else head, line) for number, line in enumerate(words)]


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, with each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True) if width).rstrip()
        for row in table
    ]
