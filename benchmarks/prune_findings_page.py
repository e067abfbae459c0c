"""What `prune_findings` and `prune_peers` recorded, for docs/turning-off.md."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy import stats

from sparsedial.units import signed

RECORDS = Path(__file__).parent / "records"
RECORD, PEERS = RECORDS / "prune_findings.json", RECORDS / "prune_peers.json"
DOMAINS = ("prose", "code")
TABLE_METHODS = ("reap", "frequency", "ean", "man", "msan", "naee", "hc-smoe", "random")
NOT_MEASURED = "Not measured yet."
Row = Mapping[str, Any]  # seed, checkpoint, calibration, method, keep, loss by domain, agreement


def figure_of(rows: Sequence[Row], seed: str, calibration: str, method: str, keep: float, figure: str) -> float:
    """One figure of a model, the mean over draws: the loss on a domain or on both, or the agreement."""
    if method == "random":
        calibration = "both"
    wanted = (seed, calibration, method, keep)
    found = [row for row in rows if (row["seed"], row["calibration"], row["method"], row["keep"]) == wanted]
    return mean(_figure(row, figure) for row in found)


def _figure(row: Row, figure: str) -> float:
    if figure == "agreement":
        return float(row["agreement"])
    return float(row["loss"][figure] if figure in DOMAINS else mean(row["loss"].values()))


def over_seeds(values: Sequence[float]) -> Mapping[str, Any]:
    """The mean of paired differences with its 95 % interval by Student's t; without one for a single seed."""
    if len(values) < 2:
        return {"mean": mean(values), "low": None, "high": None, "seeds": len(values)}
    half = float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return {"mean": mean(values), "low": mean(values) - half, "high": mean(values) + half, "seeds": len(values)}


def findings(rows: Sequence[Row]) -> Mapping[str, Mapping[str, Any]]:
    """Every comparison: what its first side is above the second, paired over the seeds that have both."""
    found = {}
    for keep in (0.75, 0.5):
        both = {
            "frequency above reap": ("frequency", "reap", "loss"),
            "random above frequency": ("random", "frequency", "loss"),
            "random above reap": ("random", "reap", "loss"),
            "hc-smoe above reap": ("hc-smoe", "reap", "loss"),
            "hc-smoe above reap, agreement": ("hc-smoe", "reap", "agreement"),
        }
        for name, (one, other, figure) in both.items():
            found[f"{name}, keep {keep:g}"] = _paired(rows, keep, ("both", one), ("both", other), figure)
        for domain in DOMAINS:
            for calibration in (domain, "general"):
                for free in ("man", "msan"):
                    name = f"{free} above reap on {domain}, calibrated on {calibration}, keep {keep:g}"
                    found[name] = _paired(rows, keep, (calibration, free), (calibration, "reap"), domain)
    return {name: value for name, value in found.items() if value is not None}


def _paired(
    rows: Sequence[Row], keep: float, one: tuple[str, str], other: tuple[str, str], figure: str
) -> Mapping[str, Any] | None:
    seeds = sorted({row["seed"] for row in rows})
    have = [seed for seed in seeds if all(_has(rows, seed, *side) for side in (one, other))]
    differences = [
        figure_of(rows, seed, *one, keep, figure) - figure_of(rows, seed, *other, keep, figure) for seed in have
    ]
    return over_seeds(differences) if differences else None


def _has(rows: Sequence[Row], seed: str, calibration: str, method: str) -> bool:
    calibration = "both" if method == "random" else calibration
    return any((row["seed"], row["calibration"], row["method"]) == (seed, calibration, method) for row in rows)


MISSING = {"mean": None, "low": None, "high": None}


def negated(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The difference the other way round."""
    ends = (found["mean"], found["high"], found["low"])
    return dict(zip(MISSING, (None if end is None else -end for end in ends), strict=True))


def interval_words(found: Mapping[str, Any], digits: int = 3) -> str:
    """A difference with its interval; a dash for one that is not known."""
    form = f".{digits}f"
    if found["mean"] is None:
        return "–"
    if found["low"] is None:
        return signed(found["mean"], form)
    return f"{signed(found['mean'], form)} ({signed(found['low'], form)} to {signed(found['high'], form)})"


def verdict(found: Mapping[str, Any]) -> str:
    """Whether a difference is surely on one side of 0."""
    if found["low"] is None or found["low"] <= 0 <= found["high"]:
        return "not resolved"
    return "yes" if found["low"] > 0 else "no, the other way round"


def methods_table() -> str:
    """Loss added to the whole model by each method, and how much of what it writes is the whole model's."""
    if not RECORD.exists():
        return NOT_MEASURED
    rows = json.loads(RECORD.read_text())["rows"]
    seeds = sorted({row["seed"] for row in rows})
    lines = [
        "| `--method` | prose, 75 % | code, 75 % | written alike | prose, 50 % | code, 50 % | written alike |",
        f"|{' --- |' * 7}",
    ]
    measured = {row["method"] for row in rows}
    for method in (each for each in TABLE_METHODS if each in measured):
        cells = []
        for keep in (0.75, 0.5):
            for figure in (*DOMAINS, "agreement"):
                values = [figure_of(rows, seed, "both", method, keep, figure) for seed in seeds]
                if figure == "agreement":
                    cells.append(f"{100 * mean(values):.0f} %")
                else:
                    whole = [figure_of(rows, seed, "both", "whole", 1.0, figure) for seed in seeds]
                    cells.append(f"+{mean(values) - mean(whole):.3f}")
        lines.append(f"| `{method}` | {' | '.join(cells)} |")
    return "\n".join(lines)


QUESTIONS = {
    "frequency above reap": "is `reap` before `frequency`",
    "random above frequency": "is `frequency` before chance",
    "random above reap": "is `reap` before chance",
    "hc-smoe above reap": "does merging (`hc-smoe`) lose to `reap` in reading",
}


def findings_table() -> str:
    """The answers, each with its interval over seeds."""
    if not RECORD.exists():
        return NOT_MEASURED
    found = json.loads(RECORD.read_text())["findings"]
    lines = ["| question | stays | difference | answer |", "| --- | --- | --- | --- |"]
    for name, question in QUESTIONS.items():
        for keep in ("0.75", "0.5"):
            value = found.get(f"{name}, keep {keep}", MISSING)
            lines.append(f"| {question} | {keep} | {interval_words(value)} nats | {verdict(value)} |")
    for keep in ("0.75", "0.5"):
        less = negated(found.get(f"hc-smoe above reap, agreement, keep {keep}", MISSING))
        answer = f"| {keep} | {interval_words(less)} of the tokens | {verdict(less)} |"
        lines.append(f"| does it lose to `reap` in writing {answer}")
    return "\n".join(lines)


def gates_table() -> str:
    """The gate-free scores above the gated one, by what calibrated."""
    if not RECORD.exists():
        return NOT_MEASURED
    found = json.loads(RECORD.read_text())["findings"]
    lines = [
        "| loss on | calibrated on | stays | `man` above `reap` | `msan` above `reap` |",
        "| --- | --- | --- | --- | --- |",
    ]
    for domain in DOMAINS:
        for calibration in (domain, "general"):
            for keep in ("0.75", "0.5"):
                ends = f"above reap on {domain}, calibrated on {calibration}, keep {keep}"
                cells = [interval_words(found.get(f"{free} {ends}", MISSING)) for free in ("man", "msan")]
                lines.append(f"| {domain} | {calibration} | {keep} | {' | '.join(cells)} |")
    return "\n".join(lines)


def kept_table() -> str:
    """Experts that one of llm-compressor and us keeps alone."""
    sections = json.loads(PEERS.read_text())["sections"] if PEERS.exists() else {}
    lines = [
        "| family | experts | stays | kept | kept by one alone | without a causal mask |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for section in (value for name, value in sections.items() if name.startswith("reap")):
        for keep, row in section["strengths"].items():
            groups = f" in {section['expert_groups']} groups" if section["expert_groups"] > 1 else ""
            lines.append(
                f"| {section['family']} | {section['experts']}{groups} | {keep} | {row['causal']['kept']} |"
                f" {_alone(row['causal'])} | {_alone(row['as_it_comes'])} |"
            )
    return "\n".join(lines) if len(lines) > 2 else NOT_MEASURED


def _alone(row: Mapping[str, Any]) -> str:
    gap = row["largest_gap_relative"]
    return "0" if gap is None else f"{row['different']}, scores up to {gap:.1g} apart"


def weights_table() -> str:
    """Wanda and SparseGPT beside llm-compressor's: loss, seconds, memory."""
    sections = json.loads(PEERS.read_text())["sections"] if PEERS.exists() else {}
    lines = [
        "| method | loss | of llm-compressor | seconds over its | peak memory over its | turns |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in sections.items():
        if "loss_ours" in row:
            ratios = [row[f"{figure}_ratio"] for figure in ("seconds", "peak_bytes")]
            cells = [f"{each['median']:.2f} ({each['low']:.2f}–{each['high']:.2f})" for each in ratios]
            losses = f"{row['loss_ours']:.3f} | {row['loss_peer']:.3f}"
            lines.append(f"| {name} | {losses} | {' | '.join(cells)} | {row['turns']} |")
    return "\n".join(lines) if len(lines) > 2 else NOT_MEASURED
