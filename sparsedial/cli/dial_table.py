"""The table of a measured dial: each setting with the loss that it adds, its speed, memory and energy."""

from __future__ import annotations

from sparsedial.cli.rows import Rows, aligned, lines
from sparsedial.records.dial_file import MeasuredDial
from sparsedial.showing.settings_words import HEADS, setting_cells, setting_name


def dial_table(dial: MeasuredDial) -> str:
    """One line a setting, and where they were written."""
    points = [(setting_name(point, dial), setting_cells(point)) for point in dial.settings]
    table = aligned([HEADS, *(cells for _, cells in points)])
    rows: Rows = [("setting", table[0]), *zip((name for name, _ in points), table[1:], strict=True)]
    trained = dial.trained_for
    ks = "" if trained is None else ", ".join(map(str, trained.top_k_experts))
    return lines([*rows, *([("trained for", f"k = {ks}, by {trained.by}")] if trained else []), ("written", dial.out)])
