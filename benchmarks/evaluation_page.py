"""Tables of docs/evaluation.md: our model beside lm-eval's own, from the record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECORDS = Path(__file__).parent / "records"
RECORD = RECORDS / "evaluation.json"
SCORES = RECORDS / "smollm2_500.json", RECORDS / "smollm2_tasks.json"  # the first that has a task is shown
PUBLISHED = {  # of the original in bfloat16, all items, by others with lm-eval: metric and per cent
    "arc_easy": ("acc", 54.1), "arc_challenge": ("acc_norm", 27.7), "hellaswag": ("acc_norm", 43.0),
    "piqa": ("acc_norm", 66.9), "gsm8k": ("exact_match,flexible-extract", 0.4),
}  # fmt: skip
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
    length = f", {row['tokens']} new tokens" if row.get("tokens") else ""
    return f"| {name}{length} | {ours} | {theirs} | {ratio} | ≥ {row['aim']:g} |"


def agreement_table() -> str:
    """How far our answers lie from lm-eval's own, item by item."""
    rows: dict[str, Any] | None = json.loads(RECORD.read_text())["agreement"]
    if rows is None:
        return NOT_MEASURED
    heads = ["| task | items | largest difference | scores |", "| --- | --- | --- | --- |"]
    return "\n".join([*heads, *(_agreement(name, row) for name, row in rows.items())])


def families_table() -> str:
    """The same for untrained checkpoints of the sparse families, all tasks of a family in one row."""
    families: dict[str, Any] | None = json.loads(RECORD.read_text())["families"]
    if families is None:
        return NOT_MEASURED
    heads = [
        "| family | tasks | items | largest difference | different texts, after a near tie | scores |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*heads, *(_family(name, list(rows.values())) for name, rows in families.items())])


def _family(name: str, rows: list[dict[str, Any]]) -> str:
    apart = max(row.get("largest_difference_nats", 0.0) for row in rows)
    texts, ties = (sum(row.get(key, 0) for row in rows) for key in ("texts_different", "of_these_after_a_near_tie"))
    equal = "equal" if all(row["scores_equal"] for row in rows) else "different"
    items = sum(row["items"] for row in rows)
    return f"| {name} | {len(rows)} | {items} | {apart:.1g} nats | {texts}, {ties} | {equal} |"


def _agreement(name: str, row: dict[str, Any]) -> str:
    if "largest_difference_nats" in row:
        apart = f"{row['largest_difference_nats']:.1g} nats"
    else:
        apart = f"{row['texts_different']} texts, {row['of_these_after_a_near_tie']} of them after a near tie"
    return f"| {name} | {row['items']} | {apart} | {'equal' if row['scores_equal'] else 'different'} |"


def published_table() -> str:
    """SmolLM2's scores on the first items of each task, beside published ones."""
    more, fewer = (json.loads(file.read_text())["tasks"] for file in SCORES)
    rows: dict[str, Any] = more | {name: row for name, row in fewer.items() if name in PUBLISHED and name not in more}
    heads = ["| task | items, shots | metric | ours (95 %) | published |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([*heads, *(_score(name, row) for name, row in rows.items())])


def _score(name: str, row: dict[str, Any]) -> str:
    metric, published = PUBLISHED.get(name, (row["primary"], None))
    found = row["metrics"][metric]
    ours = f"{100 * found['mean']:.1f} % ({100 * found['low']:.1f}–{100 * found['high']:.1f})"
    asked = f"{row['items']}, {row['shots']}-shot"
    return f"| {name} | {asked} | {metric} | {ours} | {'–' if published is None else f'{published:.1f} %'} |"
