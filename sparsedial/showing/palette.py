"""The colours of pages and pictures."""

from __future__ import annotations

INK, MUTED, RULE, PAPER = "#1c2430", "#5f6b7a", "#d9dee5", "#ffffff"
DENSE = "#c8500f"
# For each colour: its name on a page, and its values in light and in dark mode.
PAGE_COLOURS = {
    INK: ("ink", INK, "#e8ecf1"),
    MUTED: ("muted", MUTED, "#a3aebb"),
    RULE: ("rule", RULE, "#38414d"),
    PAPER: ("paper", PAPER, "#171c23"),
    DENSE: ("dense", DENSE, "#ff9352"),
}
