"""What `neurons_per_token` recorded, for the README and docs/turning-off.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsedial.units import human_percent, with_minus

RECORD = Path(__file__).parent / "records" / "neurons_per_token.json"
NAMES = {"textbooks/test.jsonl.gz": "textbooks", "code_python/test.jsonl.gz": "Python code"}
HALF, PROSE = "0.5", "textbooks/test.jsonl.gz"


def neurons_sentence() -> str:
    """What half of the neurons cost, chosen per token and for good."""
    found = json.loads(RECORD.read_text())["loss_increase"][HALF]
    token, good = (interval_cell(found[way][PROSE]) for way in ("per token", "for good"))
    return (
        "Half of a real model's feed-forward neurons do not matter for a given token, though hardly any can be removed"
        "\nfor good. Of SmolLM2-135M-Instruct the best half for each token adds"
        f"\n{token} nats per token on textbooks; the same half for all tokens adds"
        f"\n{good} ([how](docs/turning-off.md#neurons))."
    )


def neurons_table() -> str:
    """A row for each share and text."""
    found = json.loads(RECORD.read_text())["loss_increase"]
    rows = [
        f"| {human_percent(float(share))} | {NAMES[text]} | "
        + " | ".join(interval_cell(ways[way][text]) for way in ("per token", "for good", "at random"))
        + " |"
        for share, ways in found.items()
        for text in NAMES
    ]
    head = "| share | text | each token's own best | the same for all tokens | drawn, the same for all |"
    return "\n".join([head, "| --- | --- | --- | --- | --- |", *rows])


def interval_cell(row: Mapping[str, Any]) -> str:
    """A difference with its interval."""
    return with_minus(f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})")
