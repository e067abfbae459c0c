"""What the dial page says: every figure in words, since the browser holds no formula."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from sparsedial.showing.words import crossing_words, signed
from sparsedial.units import human_bytes, human_count, human_joules, human_seconds

AXES = {
    "flops": "training FLOPs",
    "seconds": "seconds of training",
    "joules": "joules of training",
    "dollars": "dollars of training",
}
BOUNDS = {
    "max_total_parameters": "at most {} total parameters",
    "max_active_parameters": "at most {} active parameters",
    "max_experts": "at most {} experts",
    "top_k": "{} experts a token",
    "memory_bytes": "at most {} to train in",
    "serving_memory_bytes": "at most {} to serve in",
    "decode_tokens_per_second": "at least {} tokens per second",
    "data_tokens": "{} unique tokens of data",
}
CSV = (
    "sparsity", "experts", "top_k", "total_parameters", "active_parameters", "tokens", "loss", "loss_low", "loss_high",
    "flops", "seconds", "joules", "dollars", "memory_bytes", "serving_memory_bytes",
)  # fmt: skip


def with_words(answer: dict[str, Any], law: str, state: Mapping[str, str]) -> dict[str, Any]:
    """The positions of a dial with their words, the finding, the command that asks the same, and a table as CSV."""
    rows = answer["positions"]
    dense = rows[answer["dense"]] if answer["dense"] is not None else None
    best = rows[answer["best"]]
    return {
        **answer,
        "positions": [{**row, "words": _row_words(row, dense)} for row in rows],
        "words": _finding(best, dense),
        "command": _command(law, state),
        "csv": _csv(rows),
    }


def _row_words(row: dict[str, Any], dense: dict[str, Any] | None) -> dict[str, str]:
    shape, costs = row["shape"], row["costs"]
    spread = ""
    if costs["seconds"] is not None:
        spread = f" ({human_seconds(costs['seconds_low'])} to {human_seconds(costs['seconds_high'])})"
    return {
        "sparsity": _sparsity(row),
        "short": f"{row['sparsity']:.3g}" if shape["experts"] else "dense",
        "loss": loss_words(row["predicted_loss"]),
        "gap": _gap(row, dense),
        "parameters": human_count(row["total_parameters"]),
        "active": human_count(row["active_parameters"]),
        "tokens": human_count(row["tokens"]),
        "time": "no machine named" if costs["seconds"] is None else human_seconds(costs["seconds"]) + spread,
        "energy": "no machine named" if costs["joules"] is None else human_joules(costs["joules"]),
        "money": "no price given" if costs["dollars"] is None else f"${costs['dollars']:,.0f}",
        "memory": human_bytes(costs["memory_bytes"]),
        "serving": human_bytes(costs["serving_memory_bytes"]),
        "shape": shape_line(shape),
    }


def _sparsity(row: Mapping[str, Any]) -> str:
    shape = row["shape"]
    if not shape["experts"]:
        return "dense"
    return f"{row['sparsity']:.4g} ({shape['top_k']} of {shape['experts']})"


def loss_words(loss: Mapping[str, Any]) -> str:
    """A loss with its interval, where it has one."""
    if loss["low"] is None:
        return f"{loss['mean']:.3f}"
    return f"{loss['mean']:.3f} ({loss['low']:.3f} to {loss['high']:.3f})"


def _gap(row: dict[str, Any], dense: dict[str, Any] | None) -> str:
    if dense is None:
        return "no dense model fits"
    if row is dense:
        return "this is it"
    return f"{signed(row['predicted_loss']['mean'] - dense['predicted_loss']['mean'])} nats"


def shape_line(shape: Mapping[str, Any]) -> str:
    """A shape's sizes on one line."""
    sizes = f"{shape['layers']} layers, d_model {shape['d_model']}, {shape['heads']} heads of {shape['head_dim']}"
    if not shape["experts"]:
        return f"{sizes}; dense, d_ff {shape['d_ff']}"
    shared = f", {shape['shared_experts']} shared" if shape["shared_experts"] else ""
    return f"{sizes}; {shape['experts']} experts of {shape['d_expert']}, top-{shape['top_k']}{shared}"


def _finding(best: dict[str, Any], dense: dict[str, Any] | None) -> str:
    size = f"{human_count(best['total_parameters'])} parameters, {human_count(best['active_parameters'])} active"
    if not best["shape"]["experts"]:
        return f"Stay dense: the best of all is a dense model with {human_count(best['total_parameters'])} parameters."
    words = f"The best is sparsity {_sparsity(best)}: {size}"
    if dense is not None:
        better = dense["predicted_loss"]["mean"] - best["predicted_loss"]["mean"]
        words += f", predicted {better:.3f} nats better than the best dense model at the same cost"
    bounds = [_bound(name) for name in best["binding_constraints"]]
    return f"{words}." + (f" What stops it there: {'; '.join(bounds)}." if bounds else "")


def _bound(name: str) -> str:
    """A binding constraint in words: `max_total_parameters=3e+10` is `at most 30B total parameters`."""
    key, _, rest = name.partition("=")
    value, _, why = rest.partition(":")
    if why:
        return f"{key.replace('_', ' ')} {value} is{why.removeprefix(' the')}".replace("is most", "is the most")
    words = BOUNDS.get(key)
    return words.format(human_bytes(float(value)) if "memory" in key else human_count(float(value))) if words else name


def _command(law: str, state: Mapping[str, str]) -> str:
    flags = [
        f"--{key.replace('_', '-')} {shlex.quote(value)}"
        for key, value in state.items()
        if value and key not in ("position", "law")
    ]
    return " ".join(["sparsedial plan", *flags, f"--law {shlex.quote(law)}", "--sparsity SPARSITY"])


def _csv(rows: list[dict[str, Any]]) -> str:
    lines = [",".join(CSV)]
    for row in rows:
        loss = row["predicted_loss"]
        values = {
            **row["shape"],
            **row["costs"],
            **row,
            "loss": loss["mean"],
            "loss_low": loss["low"],
            "loss_high": loss["high"],
        }
        lines.append(",".join("" if values[name] is None else str(values[name]) for name in CSV))
    return "\n".join(lines) + "\n"


def race_words(answer: dict[str, Any]) -> dict[str, Any]:
    """The crossover in words, and what its axis counts."""
    cross = answer["crossover"]
    words = answer["crossover_reason"] if cross is None else f"Sparse beats dense {crossing_words(cross)}."
    return {**answer, "words": words[0].upper() + words[1:], "axis": AXES.get(answer.get("currency", ""), "budget")}
