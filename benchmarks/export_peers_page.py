"""The tables of docs/dial.md on exported settings in other programs, from the record of `benchmarks.export_peers`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.prune_findings_page import NOT_MEASURED

RECORD = Path(__file__).parent / "records" / "export_peers.json"
WRONG = 0.01  # a difference of log-probabilities that no rounding of float32 makes
HEADS = ("checkpoint", "written as", "setting", "difference", "the setting moves by", "same ids", "same greedy ids")


def exports_table(peer: str) -> str:
    """A row for each folder that a peer read."""
    if not RECORD.exists():
        return NOT_MEASURED
    found = json.loads(RECORD.read_text())
    rows = [_row(row, found["tokens"]) for row in found["rows"] if row["peer"] == peer and row["refused"] is None]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (HEADS, ["---"] * len(HEADS), *rows))


def _row(row: Mapping[str, Any], tokens: int) -> list[str]:
    moved = "–" if row["setting"] == "default" else f"{row['moved_by_setting']:.2g}"
    return [
        row["checkpoint"],
        f"`{row['family']}`",
        f"`{row['setting']}`",
        _difference(row["largest_difference"]),
        moved,
        "yes" if row["same_ids"] else "no",
        f"{row['greedy_alike']} of {tokens}",
    ]


def _difference(value: float) -> str:
    """Rounding, or in bold what is another model."""
    return f"{value:.0e}".replace("e-0", "e-") if value < WRONG else f"**{value:.2g}**"
