"""Tables of docs/evaluation.md: our model beside lm-eval's own, from the record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECORD = Path(__file__).parent / "records" / "evaluation.json"
NOT_MEASURED = "Not measured yet."


def throughput_table() -> str:
    """Items per second of each task, and what was aimed for."""
    rows: dict[str, Any] | None = json.loads(RECORD.read_text())["throughput"]
    if rows is None:
        return NOT_MEASURED
    heads = ["| task | items per second | of `HFLM` | ratio | aim |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([*heads, *(_throughput(name, row) for name, row in rows.items())])


def _throughput(name: str, row: dict[str, Any]) -> str:
    ratio = f"{row['ratio']:.2f} ({row['ratio_low']:.2f}–{row['ratio_high']:.2f})"
    ours, theirs = (f"{row[f'{whose}_items_per_second']:.2f}" for whose in ("our", "their"))
    return f"| {name} | {ours} | {theirs} | {ratio} | ≥ {row['aim']:g} |"


def agreement_table() -> str:
    """How far our answers lie from lm-eval's own, item by item."""
    rows: dict[str, Any] | None = json.loads(RECORD.read_text())["agreement"]
    if rows is None:
        return NOT_MEASURED
    heads = ["| task | items | largest difference | scores |", "| --- | --- | --- | --- |"]
    return "\n".join([*heads, *(_agreement(name, row) for name, row in rows.items())])


def _agreement(name: str, row: dict[str, Any]) -> str:
    if "largest_difference_nats" in row:
        apart = f"{row['largest_difference_nats']:.1g} nats"
    else:
        apart = f"{row['texts_different']} texts, {row['of_these_after_a_near_tie']} of them after a near tie"
    return f"| {name} | {row['items']} | {apart} | {'equal' if row['scores_equal'] else 'different'} |"
