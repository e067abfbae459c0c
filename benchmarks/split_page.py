"""What `split_experts` recorded, for docs/splitting.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.neurons_page import NAMES, interval_cell
from sparsedial.units import human_percent

RECORD = Path(__file__).parent / "records" / "split_experts.json"
COLUMNS = {
    "experts": "experts",
    "experts, numbers by layer": "numbers by layer",
    "experts, chosen perfectly": "chosen perfectly",
    "drawn experts": "a division by chance",
    "removed": "as many removed for good",
}
SHARES = (0.8, 0.6, 0.5)


def split_table() -> str:
    """A row for each share and text that was measured; a dash for what was not."""
    found = {(row["way"], row["share"], row["text"]): row for row in json.loads(RECORD.read_text())["rows"]}
    rows = [
        f"| {human_percent(share)} | {name} | {' | '.join(_cell(found.get((way, share, text))) for way in COLUMNS)} |"
        for text, name in NAMES.items()
        for share in SHARES
        if any((way, share, text) in found for way in COLUMNS)
    ]
    head = f"| neurons of a token | text | {' | '.join(COLUMNS.values())} |"
    return "\n".join([head, f"|{' --- |' * (2 + len(COLUMNS))}", *rows])


def _cell(row: Mapping[str, Any] | None) -> str:
    return "–" if row is None else interval_cell(row["loss_increase"])
