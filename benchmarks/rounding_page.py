"""How far losses of cut weights lie from llm-compressor's, and how far rounding moves them: for docs/turning-off.md."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from benchmarks.prune_findings_page import PEERS, RECORDS
from sparsedial.units import human_percent

RECORD = RECORDS / "prune_rounding.json"
ASKED = 0.01  # of the peer's loss


def rounding_sentences() -> str:
    """Which losses lie further apart than was asked, and how far our own cuts of one text lie apart."""
    peers, rounded = (json.loads(record.read_text())["sections"] for record in (PEERS, RECORD))
    ours = {name: row["loss_ours"] / row["loss_peer"] - 1 for name, row in peers.items() if "loss_ours" in row}
    far = " and ".join(_apart(name, over) for name, over in ours.items() if abs(over) > ASKED)
    scatter = " and ".join(f"{human_percent(_scatter(row))} by {_called(name)}" for name, row in rounded.items())
    given = max(math.ceil(1e4 * max(row["given_theirs"])) for row in rounded.values())
    last = max(row["as_cut"][-1] for row in rounded.values())
    return (
        f"A loss within {human_percent(ASKED)} of llm-compressor's was asked. {far}, and most of that is rounding:"
        f" our own cuts of the same windows, whose embeddings differ by a millionth, lie apart by up to {scatter}."
        " Given the inputs"
        " of the model that llm-compressor has cut, ours turns off the same weights, but for at most"
        f" {given} of 10,000 in a layer. Each cut by itself, more weights differ in each later layer, up to"
        f" {human_percent(last, 1)} in the last ([record](../benchmarks/records/prune_rounding.json))."
        + "".join(_by_both(name, row["pairs"]["relative"]) for name, row in rounded.items() if "pairs" in row)
    )


def _by_both(name: str, relative: Mapping[str, float]) -> str:
    """The mean difference of several cuts by both programs, as a sentence."""
    mean, low, high = (human_percent(relative[name]) for name in ("mean", "low", "high"))
    return (
        f" So both programs cut {relative['seeds']} copies of the checkpoint, whose embeddings differ so: by"
        f" {_called(name)} ours lies {mean} above llm-compressor's on average (95 % interval {low} to {high})."
    )


def _called(name: str) -> str:
    return name.replace("wanda", "Wanda").replace("sparsegpt", "SparseGPT")


def _apart(name: str, over: float) -> str:
    return f"{_called(name)} is {human_percent(abs(over))} {'above' if over > 0 else 'below'} it"


def _scatter(row: Mapping[str, Any]) -> float:
    """How far apart our own losses lie."""
    losses = [row["loss_ours"], *row["losses"]]
    return max(losses) / min(losses) - 1
