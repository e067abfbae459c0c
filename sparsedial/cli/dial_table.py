"""The table of a measured dial: each setting with the loss that it adds, its speed, memory and energy."""

from __future__ import annotations

from sparsedial.cli.rows import headed, lines
from sparsedial.records.dial_file import MeasuredDial
from sparsedial.showing.settings_words import HEADS, energy_words, setting_cells, setting_name


def dial_table(dial: MeasuredDial) -> str:
    """One line a setting, and where they were written."""
    points = [(setting_name(point, dial, short=True), setting_cells(point)) for point in dial.settings]
    rows = headed("setting", HEADS, points)
    trained, energy = dial.trained_for, energy_words(dial)
    ks = "" if trained is None else ", ".join(map(str, trained.top_k_experts))
    return lines(
        [
            *rows,
            *([("energy", energy)] if energy else []),
            *([("trained for", f"k = {ks}, by {trained.by}")] if trained else []),
            *(("warning", words) for words in dial.warnings),
            ("written", dial.out),
        ]
    )
