"""The colours of pages and pictures."""

from __future__ import annotations

INK, MUTED, RULE, PAPER = "#1c2430", "#5f6b7a", "#d9dee5", "#ffffff"
DENSE = "#c8500f"
COLOURS = ("#0b2c66", "#b0457a", "#3f7d58", "#9a7b1f", "#7a5c99", "#5f6b7a")  # of things that have no order
# For each colour: its name on a page, and its values in light and in dark mode.
PAGE_COLOURS = {
    INK: ("ink", INK, "#e8ecf1"),
    MUTED: ("muted", MUTED, "#a3aebb"),
    RULE: ("rule", RULE, "#38414d"),
    PAPER: ("paper", PAPER, "#171c23"),
    DENSE: ("dense", DENSE, "#ff9352"),
}
