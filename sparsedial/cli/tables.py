"""The short tables that people read where `--json` is not given."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any

from sparsedial.units import human_bytes, human_count, human_joules, human_seconds

Rows = Sequence[tuple[str, str]]
NOTABLE = 0.02  # of the tokens asked for: a larger difference is said


def _lines(rows: Rows) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _sparsities(band: Sequence[float]) -> str:
    """From where to where, or the only one."""
    low, high = (f"{end:.4g}" for end in band)
    return f"{low} alone" if low == high else f"{low} to {high}"


def _errors(record: dict[str, Any]) -> str:
    return (
        f"{_percent(record['median_relative_error'])} in the median, {_percent(record['max_relative_error'])} at worst"
    )


def count_table(result: dict[str, Any]) -> str:
    """Parameters, FLOPs and bytes of a model."""
    sparsity = result["sparsity"]
    return _lines(
        [
            ("model", result["name"]),
            ("total parameters", f"{human_count(result['total_parameters'])}  ({result['total_parameters']:,})"),
            ("active parameters", f"{human_count(result['active_parameters'])}  ({result['active_parameters']:,})"),
            ("  with one embedding", human_count(result["active_parameters_one_embedding"])),
            ("  with no embedding", human_count(result["active_parameters_no_embedding"])),
            ("sparsity of experts", f"{sparsity['experts']:.4g}  (1 - top_k/experts)"),
            ("sparsity of parameters", f"{sparsity['parameters']:.4g}  (1 - active/total)"),
            ("activation ratio", f"{sparsity['activation_ratio']:.4g}  (shared experts counted)"),
            (
                "forward FLOPs per token",
                f"{human_count(result['forward_flops_per_token'])}  at {result['context_tokens']} tokens",
            ),
            ("training FLOPs per token", human_count(result["training_flops_per_token"])),
            ("weights", f"{human_bytes(result['weight_bytes'])}  in {result['dtype']}"),
            ("cache per token", human_bytes(result["kv_cache_bytes_per_token"])),
        ]
    )


def _cost_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    if result["seconds"] is None:
        spent = [("time, energy", result["seconds_reason"])]
    else:
        low, high = (human_seconds(result.get(name, result["seconds"])) for name in ("seconds_low", "seconds_high"))
        spent = [
            ("time", low if low == high else f"{low} to {high}"),
            ("energy", f"{human_joules(result['joules'])}  ({result['joules_source']})"),
        ]
    source = f"  ({result['memory_source']})" if "memory_source" in result else ""
    return [
        ("FLOPs", f"{result['flops']:.3g}"),
        ("memory", human_bytes(result["memory_bytes"]) + source),
        *spent,
        ("money", "unknown: no price was given"),
    ]


def study_table(result: dict[str, Any]) -> str:
    """What a study found, what it would cost, or how far it is."""
    if result.get("dry_run"):
        budgets = ", ".join(f"{budget:.2g}" for budget in result["budgets_flops"])
        largest = f"{human_count(result['largest_total_parameters'])} in the largest cell"
        return _lines(
            [
                ("cells", str(result["cells"])),
                ("parameters", largest),
                ("budgets", f"{budgets} FLOPs"),
                *_cost_rows(result),
            ]
        )
    if "runs_finished" in result:
        return _lines(_status_rows(result))
    from sparsedial.showing.words import verdict_sentence

    rows = [(f"at equal {currency}", verdict_sentence(result, currency)) for currency in ("flops", "seconds", "joules")]
    return _lines([*rows, *_law_rows(result), ("report", result["report"]), ("next", result["next"])])


def _status_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    status, elapsed = result["status"], result["elapsed_seconds"]
    if result["phase"]:
        status += f" in the phase '{result['phase']}'"
    if result["status"] == "stopped":
        status += f"; last written {human_seconds(round(result['written_seconds_ago']) or 1)} ago"
    rows = [
        (
            f"  {phase['name']}",
            human_seconds(phase["seconds"]) + (f", {runs} runs" if (runs := phase.get("runs")) else ""),
        )
        for phase in result["phases"]
    ]
    diverged = f", {result['cells_diverged']} diverged" if result["cells_diverged"] else ""
    return [
        ("study", result["out"]),
        ("status", status),
        ("cells", f"{result['cells_finished']} finished{diverged}; {result['cells_planned']} were planned"),
        *rows,
        ("time so far", human_seconds(elapsed) if elapsed else "not known"),
        ("report", result["report"] or "not yet"),
    ]


def _law_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    law, cells = result["law"], result["cells"]
    rows = [
        (
            "cells",
            f"{cells['finished']} finished, {cells['diverged']} diverged, in {human_seconds(result['wall_seconds'])}",
        )
    ]
    if law["refused"]:
        return [*rows, ("law", f"refused: {law['refused']}")]
    held = law["held_out"]
    checked = f"held-out budget predicted within {_errors(held)}" if held else "not checked: no budget was held out"
    rows.append(("law", f"{law['form']}; {checked}"))
    band = result["near_optimal"]["sparsity"]
    if band:
        rows.append(("near-optimal", f"sparsity {_sparsities(band)} (within 0.5 % of the best predicted loss)"))
    rows += [("bound", bound) for bound in result["binding_constraints"]]
    return rows


def fit_table(result: dict[str, Any]) -> str:
    """Coefficients with intervals, and the held-out error."""
    if "forms" in result:
        return _lines([(name, form["says"]) for name, form in result["forms"].items()])
    if result["refused"]:
        return f"refused: {result['refused']}"
    share = f"{100 * result['confidence']:.0f} %"
    alone = result["independent_runs"]
    groups = f" in {alone} groups that are independent" if alone < result["runs"] else ""
    rows = [("form", result["form"]), ("runs", f"{result['runs']}{groups}")]
    for name, value in result["coefficients"].items():
        if result["intervals"][name] is None:
            rows.append((name, f"{value:.4g}"))
            continue
        low, high = result["intervals"][name]
        open_ = "  not determined by these runs" if name in result["undetermined"] else ""
        rows.append((name, f"{value:.4g}  ({share}: {low:.4g} to {high:.4g}){open_}"))
    if result["intervals_reason"]:
        rows.append(("no intervals", result["intervals_reason"]))
    rows.append(("spread", f"{_percent(result['rmse_log_loss'])} of the loss"))
    held = result["held_out"]
    if held:
        rows.append(("held out", f"{held['runs']} runs, predicted within {_errors(held)}"))
    if result["compared"]:
        rows.append(("compared by", f"{result['compared']['rule']}; the simplest near the best is taken"))
        for name, form in result["compared"]["forms"].items():
            rows.append((f"  {name}", form["refused"] or _percent(form["rms_log_error"])))
    return _lines(rows)


def profile_table(result: dict[str, Any]) -> str:
    """How fast this machine trains, and how far off the profile is."""
    memory, rows = result["memory"], result["rows"]
    fastest = max(row["features"]["dense_flops"] / row["median_seconds"] for row in rows if not row["experts"])
    return _lines(
        [
            ("machine", f"{result['machine']['processor']}, {result['threads']} threads, {result['dtype']}"),
            ("dense steps", f"up to {fastest / 1e9:.3g} GFLOP/s at {result['batch']} x {result['context']} tokens"),
            (
                "time",
                f"{len(rows)} shapes; each left out in turn is predicted within {_errors(result)}",
            ),
            (
                "memory",
                f"{len(memory['rows'])} runs of ten steps; each left out in turn is predicted within {_errors(memory)}",
            ),
            ("power", f"{result['watts']:.3g} W: {result['watts_source']}"),
            ("written", result["out"]),
            ("next", f"sparsedial plan --seconds 10d --device {shlex.quote(result['out'])}"),
        ]
    )


def train_table(result: dict[str, Any]) -> str:
    """What a run gave, or would cost."""
    if result.get("dry_run"):
        parameters = (
            f"{human_count(result['total_parameters'])} total, {human_count(result['active_parameters'])} active"
        )
        return _lines([("parameters", parameters), ("tokens", _learnt(result)), *_cost_rows(result)])
    rows = [("status", result["status"] + (f": {result['reason']}" if result["reason"] else ""))]
    if result["test_loss"] is not None:
        rows.append(
            ("test loss", f"{result['test_loss']:.4f} nats per token, {result['test_bits_per_byte']:.4f} bits per byte")
        )
    rows.append(("tokens", f"{_learnt(result)} in {human_seconds(result['seconds'])}"))
    for branch in result["branches"]:
        rows.append((f"branch of {human_count(branch['tokens'])} tokens", _branch_words(branch)))
    if result["checkpoint"]:
        rows.append(("checkpoint", result["checkpoint"]))
    return _lines(rows)


def _learnt(result: dict[str, Any]) -> str:
    """Tokens of a run: those that it came to where it diverged, and those that were asked for where steps are large."""
    tokens, recipe = result["tokens"], result.get("recipe", {})
    if result.get("status") == "diverged":
        done = result["steps_done"] * recipe["batch"] * recipe["context"]
        return f"{human_count(done)} of {human_count(tokens)}"
    asked = result["tokens_asked"]
    if asked is None or abs(tokens / asked - 1) < NOTABLE:
        return human_count(tokens)
    return f"{human_count(tokens)} ({human_count(asked)} were asked for: a run is a whole number of steps)"


def _branch_words(branch: dict[str, Any]) -> str:
    if branch["test_loss"] is None:
        return branch["status"]
    return f"{branch['test_loss']:.4f} nats per token; it shares its trunk, so it is no independent run"


def evaluate_table(result: dict[str, Any]) -> str:
    """Loss on a text."""
    return _lines(
        [
            ("loss", f"{result['loss']:.4f} nats per token"),
            ("bits per byte", f"{result['bits_per_byte']:.4f}"),
            (
                "scored",
                f"{result['tokens']:,} tokens, {result['bytes']:,} bytes, windows of {result['context_tokens']}",
            ),
        ]
    )


def generate_table(result: dict[str, Any]) -> str:
    """The prompt and its continuation."""
    return result["prompt"] + result["text"]


def plan_table(result: dict[str, Any]) -> str:
    """The answer, its rival, its bounds, and what other laws say."""
    shape, costs, loss = result["shape"], result["costs"], result["predicted_loss"]
    from sparsedial.showing.dial_words import loss_words, shape_line
    from sparsedial.showing.words import crossing_words

    rows = [
        ("shape", shape_line(shape)),
        (
            "parameters",
            f"{human_count(result['total_parameters'])} total, {human_count(result['active_parameters'])} active",
        ),
        ("tokens", f"{human_count(result['tokens'])}, {result['tokens_per_total_parameter']:.3g} per total parameter"),
        ("predicted loss", loss_words(loss) + f" nats per token by {result['law']}"),
        ("FLOPs", f"{costs['flops']:.3g}"),
    ]
    if costs["seconds"] is not None:
        spread = f"{human_seconds(costs['seconds_low'])} to {human_seconds(costs['seconds_high'])}"
        rows.append(("time", f"{human_seconds(costs['seconds'])} ({spread})"))
        rows.append(("energy", human_joules(costs["joules"])))
    if costs["dollars"] is not None:
        rows.append(("money", f"${costs['dollars']:,.0f}"))
    rows.append(
        (
            "memory",
            f"{human_bytes(costs['memory_bytes'])} to train, {human_bytes(costs['serving_memory_bytes'])} to serve",
        )
    )
    rows.append(("", f"to train: {costs['memory_source']}"))
    rival = result["dense_rival"]
    if rival:
        words = f"{human_count(rival['total_parameters'])}, {human_count(rival['tokens'])} tokens"
        rows.append(("dense rival", f"{words}: {loss_words(rival['predicted_loss'])}"))
    else:
        rows.append(("dense rival", result["dense_rival_reason"]))
    cross = result["crossover"]
    rows.append(
        (
            "crossover",
            f"sparse beats dense {crossing_words(cross)}" if cross else result["crossover_reason"],
        )
    )
    band = result["near_optimal"]
    spans = [
        f"sparsity {_sparsities(band['sparsity'])}",
        *(
            f"{human_count(band[name][0])} to {human_count(band[name][1])} {words}"
            for name, words in (("total_parameters", "parameters"), ("tokens", "tokens"))
        ),
    ]
    rows.append(("near-optimal", ", ".join(spans)))
    rows += [("bound", bound) for bound in result["binding_constraints"]]
    rows += [(f"by {row['law']}", _other_words(row)) for row in result["other_laws"]]
    rows += [("mind", line) for line in result["warnings"]]
    for item in result.get("exported", []):
        rows.append(("written", f"{item['file']} for {item['written_for']}"))
        rows.append(("use it with", item["command"]))
        rows += [("not expressed", line) for line in item["not_expressed"]]
    return _lines(rows)


def _other_words(row: dict[str, Any]) -> str:
    answer = row["answer"]
    if answer is None:
        return row["answer_reason"]
    if "leverage_of_this_shape" in answer:
        return f"this shape is worth {answer['leverage_of_this_shape']:.3g} times its compute in a dense one"
    sizes = f"{human_count(answer['total_parameters'])} total, {human_count(answer['active_parameters'])} active"
    words = f"sparsity {answer['sparsity']:.4g}, {sizes}, {human_count(answer['tokens'])} tokens"
    return f"{words}; held fixed: {row['held_fixed']}"


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "study": study_table,
    "count": count_table,
    "fit": fit_table,
    "plan": plan_table,
    "profile": profile_table,
    "dial": lambda result: "",
    "train": train_table,
    "evaluate": evaluate_table,
    "generate": generate_table,
}
