"""What `split_experts` and a split with a recovery recorded, for docs/splitting.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.dial_page import SHARES as GATES
from benchmarks.neurons_page import NAMES, PROSE, interval_cell
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
CODE = "code_python/test.jsonl.gz"
BY_GATES, BY_ACTIVATIONS = "thresholds on gates", "thresholds on activations"
KINDS = {"tokens a second, written": "decode_tokens_per_second", "read": "prefill_tokens_per_second"}


def _rows() -> dict[tuple[str, float, str], dict[str, Any]]:
    """By way, share and text."""
    return {(row["way"], row["share"], row["text"]): row for row in json.loads(RECORD.read_text())["rows"]}


def split_table() -> str:
    """A row for each share and text that was measured; a dash for what was not."""
    found = _rows()
    rows = [
        f"| {human_percent(share)} | {name} | {' | '.join(_cell(found.get((way, share, text))) for way in COLUMNS)} |"
        for text, name in NAMES.items()
        for share in SHARES
        if any((way, share, text) in found for way in COLUMNS)
    ]
    head = f"| neurons of a token | text | {' | '.join(COLUMNS.values())} |"
    return "\n".join([head, f"|{' --- |' * (2 + len(COLUMNS))}", *rows])


def thresholds_sentences() -> str:
    """What thresholds lose by the bytes that they read, and how much faster these bytes let a token be written."""
    found, half = _rows(), _neurons_setting("neurons=0.5")
    ways = [(BY_GATES, 0.7), (BY_GATES, 0.4), (BY_ACTIVATIONS, 0.4)]
    prose, code = ([found[(*way, text)] for way in ways] for text in (PROSE, CODE))
    gates, fewer, activations = (f"{human_percent(row['bytes_share'])} add {_cell(row)}" for row in prose)
    on_code = ", ".join(f"{row['loss_increase']['mean']:.3f}" for row in code)
    shares = " and ".join(human_percent(row["bytes_share"]) for row in prose[:2])
    allowed = " and ".join(f"{_bytes_allow(row['bytes_share']):.2f}" for row in prose[:2])
    return (
        "* A threshold loses far less. Where only neurons take part whose gate is open far enough (CATS, arXiv"
        " 2404.08763), a token reads all gates and the rest of those neurons. Of the feed-forward bytes"
        f" {gates}, {fewer}. By activations (TEAL, arXiv 2408.14690), which read all gates and ups, {activations}. On"
        f" code the three add {on_code}. [`neurons=0.5` of the"
        " dense checkpoint](dial.md#a-share-of-the-neurons) has a threshold on gates and another on activations:"
        f" {human_percent(half['bytes_share'])} add {_cell(half)}; gates alone added 0.216 (0.171 to 0.256) there"
        f" ([LOG.md](../LOG.md), 2026-11-30). By the bytes of the whole model {shares} let it decode {allowed} times as"
        " fast at most."
    )


def _neurons_setting(name: str) -> dict[str, Any]:
    """A setting of the dense checkpoint's dial: the feed-forward bytes that it reads, and the loss that it adds."""
    found = json.loads(GATES.read_text())
    row = next(row for row in found["groups"][0]["rows"] if row["name"] == name)
    return {"bytes_share": _with_gates(row["neurons_read_a_step"]), "loss_increase": found["loss_increase"][name]}


def _with_gates(share: float) -> float:
    """Of the weights of a feed-forward layer, where all gates are read and a share of ups and downs."""
    return (1 + 2 * share) / 3


def _bytes_allow(bytes_share: float) -> float:
    """How many times as fast a token is written at most, by the bytes of the whole model, at a share of its layers'."""
    whole, fewer, *_ = json.loads(GATES.read_text())["groups"][0]["rows"]
    layers = (whole["bytes_a_step"] - fewer["bytes_a_step"]) / (1 - _with_gates(fewer["neurons_read_a_step"]))
    return whole["bytes_a_step"] / (whole["bytes_a_step"] - (1 - bytes_share) * layers)


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


def recovered_sentences() -> str:
    """What the settings lose after it on text like what was learned, and how long it took."""
    found, text = json.loads(RECOVERED.read_text()), next(iter(RECOVERED_ON))
    lost = [
        f"{human_percent(point['neurons_share'])} of the neurons lose {point['loss_increase'][text]['mean']:.3f}"
        for point in found["dial"][1:]
    ]
    return (
        f"So {' and '.join(lost)} on text like what was learned (aims were 0.15 at 80 % and 0.4 at 60 %), though only"
        f" the last number was trained. It took {found['recovery']['seconds'] / 60:.0f} minutes of two threads beside"
        " other work."
    )


def speeds_table() -> str:
    """A row for the dense checkpoint and each setting: tokens a second, read and written, and over the dense one's."""
    found, some = json.loads(SPEED.read_text()), _rows()["experts", SHARES[0], PROSE]
    router = some["bytes_share"] - some["neurons_share"]
    rows = [("dense", found["before"], "")] + [
        (
            f"{human_percent(point['neurons_share'])} of the neurons",
            point["costs"],
            f"{_bytes_allow(point['neurons_share'] + router):.2f} of dense",
        )
        for point in found["dial"]
    ]
    lines = [
        f"| {name} | {' | '.join(_speed(costs[kind], found['before'][kind]) for kind in KINDS.values())} | {allowed} |"
        for name, costs, allowed in rows
    ]
    return "\n".join([f"| | {' | '.join(KINDS)} | written, as its bytes allow |", f"|{' --- |' * 4}", *lines])


def _speed(rate: Mapping[str, float], dense: Mapping[str, float]) -> str:
    over = "" if rate == dense else f", {rate['median'] / dense['median']:.2f} of dense"
    return f"{rate['median']:.3g} ({rate['p10']:.3g} to {rate['p90']:.3g}){over}"


def _after_cut(found: Mapping[str, Any], text: str) -> float:
    return found["recovery"]["loss_after_cut"][text]["loss"] - found["loss_before"][text]["loss"]


def _cell(row: Mapping[str, Any] | None) -> str:
    return "–" if row is None else interval_cell(row["loss_increase"])
