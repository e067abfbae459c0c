"""A record as a table for notebooks."""

from __future__ import annotations

from sparsedial.records.html import html_table
from sparsedial.records.record import Record


class Inner(Record, frozen=True, kw_only=True):
    """Two values with units in their names."""

    wall_seconds: float
    weight_bytes: int


class Outer(Record, frozen=True, kw_only=True):
    """A value of each kind."""

    name: str
    inner: Inner
    budgets_flops: tuple[float, ...]
    rows: tuple[Inner, ...]
    reason: str | None
    edited: bool


def test_a_table_names_every_value_in_its_unit_and_escapes_text():
    inner = Inner(wall_seconds=3600.0, weight_bytes=2_000_000)
    made = Outer(name="<b>", inner=inner, budgets_flops=(1e9, 2e9), rows=(inner,), reason=None, edited=True)
    table = made._repr_html_()
    for words in ("&lt;b&gt;", "inner.wall_seconds", "1 h 00 min", "2 MB", "1e+09, 2e+09", "1 entries", "–", "yes"):
        assert f">{words}<" in table, words


def test_a_table_of_nothing_is_empty():
    assert html_table({}) == "<table></table>"
