"""What `split_experts` and a split with a recovery recorded, for docs/splitting.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.neurons_page import NAMES, interval_cell
from sparsedial.units import human_percent

RECORDS = Path(__file__).parent / "records"
RECORD, RECOVERED = RECORDS / "split_experts.json", RECORDS / "split_recovered.json"
SPEED = RECORDS / "split_speed.json"
RECOVERED_ON = {"textbooks/train.jsonl.gz": "textbooks", "code_python/test.jsonl.gz": "Python code"}
COLUMNS = {
    "experts": "experts",
    "experts, numbers by layer": "numbers by layer",
    "experts, chosen perfectly": "chosen perfectly",
    "drawn experts": "a division by chance",
    "removed": "as many removed for good",
}
SHARES = (0.8, 0.6, 0.5)
KINDS = {"tokens a second, written": "decode_tokens_per_second", "read": "prefill_tokens_per_second"}


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


def recovered_table() -> str:
    """A row for each text: what each setting adds after the recovery, and the one that learned right after the cut."""
    found = json.loads(RECOVERED.read_text())
    settings = [f"{human_percent(point['neurons_share'])} of the neurons" for point in found["dial"]]
    rows = [
        f"| {name} | {_after_cut(found, text):.3f} | {interval_cell(found['recovery']['won_back'][text])} |"
        + "".join(f" {interval_cell(point['loss_increase'][text])} |" for point in found["dial"])
        for text, name in RECOVERED_ON.items()
    ]
    head = f"| text | {settings[-1]}, before | won back | {' | '.join(settings)} |"
    return "\n".join([head, f"|{' --- |' * (3 + len(settings))}", *rows])


def speeds_table() -> str:
    """A row for the dense checkpoint and each setting: tokens a second, read and written, and over the dense one's."""
    found = json.loads(SPEED.read_text())
    rows = [("dense", found["before"])]
    rows += [(f"{human_percent(point['neurons_share'])} of the neurons", point["costs"]) for point in found["dial"]]
    lines = [
        f"| {name} | " + " | ".join(_speed(costs[kind], found["before"][kind]) for kind in KINDS.values()) + " |"
        for name, costs in rows
    ]
    return "\n".join([f"| | {' | '.join(KINDS)} |", f"|{' --- |' * (1 + len(KINDS))}", *lines])


def _speed(rate: Mapping[str, float], dense: Mapping[str, float]) -> str:
    over = "" if rate == dense else f", {rate['median'] / dense['median']:.2f} of dense"
    return f"{rate['median']:.3g} ({rate['p10']:.3g} to {rate['p90']:.3g}){over}"


def _after_cut(found: Mapping[str, Any], text: str) -> float:
    return found["recovery"]["loss_after_cut"][text]["loss"] - found["loss_before"][text]["loss"]


def _cell(row: Mapping[str, Any] | None) -> str:
    return "–" if row is None else interval_cell(row["loss_increase"])
