"""What `dial` and `gates` recorded, for docs/dial.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.neurons_page import interval_cell

RECORDS = Path(__file__).parent / "records"
HALF_THE_EXPERTS, SHARES = RECORDS / "dial.json", RECORDS / "gates.json"
DEFAULT, SHARE = "default", "neurons="


def experts_sentence() -> str:
    """How much faster half of the experts are, in short."""
    one, eight = json.loads(HALF_THE_EXPERTS.read_text())["groups"]
    faster = [f"{group['times_as_fast']['value']:.2f}" for group in (one, eight)]
    return (
        f"A sparse model of 99 million parameters decodes {faster[0]} times as fast with half of the experts, and"
        f" {faster[1]} times in batches of eight; the bytes that it reads are {_bytes(one)} and {_bytes(eight)} times"
        " fewer ([record](../benchmarks/records/dial.json))."
    )


def experts_measured() -> str:
    """The same with its ranges."""
    one, eight = json.loads(HALF_THE_EXPERTS.read_text())["groups"]
    return (
        "Measured on a model of 99M parameters, 64 experts a layer, two threads"
        f" ([record](../benchmarks/records/dial.json)): k=3 makes tokens {_faster(one)} times as fast as k=6 at batch"
        f" 1, and {_faster(eight)} times at batch 8. The bytes that are read allow {_bytes(one)} and {_bytes(eight)}."
    )


def shares_measured() -> str:
    """What shares of the neurons of SmolLM2 cost and gain."""
    found = json.loads(SHARES.read_text())
    one, eight = ([row for row in group["rows"] if row["name"] != DEFAULT] for group in found["groups"])
    added = _listed([f"{interval_cell(found['loss_increase'][row['name']])} at {_share(row)}" for row in one])
    faster, allowed = ([_listed(list(map(words, rows))) for rows in (one, eight)] for words in (_faster, _bytes))
    return (
        f"* `neurons` on SmolLM2-135M-Instruct, thresholds from {found['calibration']['tokens']:,} tokens of textbooks,"
        f" 4,096 held-out ones in windows of {found['calibration']['context_tokens']}, added nats per token: {added}."
        f" On two threads one sequence is written {faster[0]} times as fast, where the bytes that are read allow"
        f" {allowed[0]}; eight together {faster[1]} times, where they allow {allowed[1]}"
        " ([record](../benchmarks/records/gates.json))."
    )


def _share(row: Mapping[str, Any]) -> str:
    return row["name"].removeprefix(SHARE)


def _faster(row: Mapping[str, Any]) -> str:
    times = row["times_as_fast"]
    return f"{times['value']:.2f} ({times['low']:.2f}–{times['high']:.2f})"


def _bytes(row: Mapping[str, Any]) -> str:
    return f"{row['times_fewer_bytes']:.2f}"


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
