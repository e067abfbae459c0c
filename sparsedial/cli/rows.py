"""Rows of a table in plain text, and the words that several tables share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

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


def headed(name: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> Rows:
    """A table whose rows have names. A head may have several lines, to be no wider than what stands below it."""
    tops = [*zip_longest(*(head.split("\n") for head in heads), fillvalue="")]
    table = aligned([*tops, *(cells for _, cells in rows)])
    return [*under(name, table[: len(tops)]), *zip((label for label, _ in rows), table[len(tops) :], strict=True)]
