"""The short tables that people read where `--json` is not given."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from sparsedial.cli.compare_table import compare_table
from sparsedial.cli.dial_table import dial_table
from sparsedial.cli.effect_table import effect_dry_table
from sparsedial.cli.evaluate_table import evaluate_dry_table, evaluate_table, evaluations_table
from sparsedial.cli.fit_table import fit_table, predicted_table
from sparsedial.cli.plan_table import plan_table
from sparsedial.cli.prune_cost_table import dial_dry_table, prune_dry_table
from sparsedial.cli.prune_table import fixed_table, prune_table
from sparsedial.cli.rank_rows import rank_rows
from sparsedial.cli.rows import Rows, errors_words, lines, span_words, under
from sparsedial.cli.select_table import pipeline_table, select_table
from sparsedial.cli.serve_table import serve_table
from sparsedial.cli.split_table import joined_table, split_table
from sparsedial.records.answers import Branch, Counts, Generation, Measured, Served, Trained
from sparsedial.records.compare import Compared
from sparsedial.records.dial_file import MeasuredDial
from sparsedial.records.dry_run import DialDryRun, EffectDryRun, PruneDryRun, StudyDryRun, TrainDryRun
from sparsedial.records.evaluation import EvaluateDryRun, Evaluation, Evaluations
from sparsedial.records.launch import JoinAnswer, Launch
from sparsedial.records.law import Fit, Forms
from sparsedial.records.optimum import Predicted
from sparsedial.records.plan import Plan
from sparsedial.records.prune import FixedSetting, Pruned
from sparsedial.records.record import Record
from sparsedial.records.selection import Selected, SelectionPipeline
from sparsedial.records.serving import ServeDryRun
from sparsedial.records.split import JoinedExperts, SplitExperts
from sparsedial.records.study import StudyAnswer, StudyStatus
from sparsedial.records.token_selection import ReferenceModelCost, StudyTokens
from sparsedial.records.trained_for import DialLoss
from sparsedial.showing.best_words import best_headline, best_sentences, lead_sentences, next_sentence
from sparsedial.showing.machines_words import machines_sentence
from sparsedial.showing.report_kept import kept_sentences
from sparsedial.showing.report_probes import equal_loss_sentences
from sparsedial.units import count_words, human_bytes, human_count, human_joules, human_percent, human_seconds

NOTABLE = 0.02  # of the requested tokens: a larger difference is shown


def join_table(joined: JoinAnswer) -> str:
    """What the workers of a machine did for a study."""
    return lines(
        [
            ("study", joined.study),
            ("trained", f"{count_words(joined.runs, 'run')} by {count_words(joined.workers, 'worker')}"),
            ("named", joined.host),
            ("time", human_seconds(joined.seconds)),
        ]
    )


def count_table(counts: Counts) -> str:
    """Parameters, FLOPs and bytes of a model."""
    sparsity = counts.sparsity
    return lines(
        [
            ("model", counts.name),
            ("total parameters", f"{human_count(counts.total_parameters)}  ({counts.total_parameters:,})"),
            ("active parameters", f"{human_count(counts.active_parameters)}  ({counts.active_parameters:,})"),
            ("  with one embedding", human_count(counts.active_parameters_one_embedding)),
            ("  with no embedding", human_count(counts.active_parameters_no_embedding)),
            ("sparsity of experts", f"{sparsity.experts:.4g}  (1 - top_k/experts)"),
            ("sparsity of parameters", f"{sparsity.parameters:.4g}  (1 - active/total)"),
            ("activation ratio", f"{sparsity.activation_ratio:.4g}  (shared experts included)"),
            (
                "forward FLOPs per token",
                f"{human_count(counts.forward_flops_per_token)}  at {counts.context_tokens} tokens",
            ),
            ("training FLOPs per token", human_count(counts.training_flops_per_token)),
            ("weights", f"{human_bytes(counts.weight_bytes)}  in {counts.dtype}"),
            ("cache per token", human_bytes(counts.kv_cache_bytes_per_token)),
        ]
    )


def study_dry_table(cost: StudyDryRun) -> str:
    """What a study would train and cost."""
    budgets = ", ".join(f"{budget:.2g}" for budget in cost.budgets_flops)
    low, high = human_seconds(cost.seconds_low), human_seconds(cost.seconds_high)
    probing = f", of which probes take {human_seconds(cost.probe_seconds)}" if cost.probe_seconds else ""
    paid = cost.reference_cost
    reading = f", of which a reference model takes {human_seconds(paid.seconds)}" if paid else ""
    return lines(
        [
            ("cells", str(cost.cells)),
            ("parameters", f"{human_count(cost.largest_total_parameters)} in the largest cell"),
            ("budgets", f"{budgets} FLOPs"),
            ("FLOPs", _flops_words(cost.flops, cost.reference_cost)),
            ("memory", human_bytes(cost.memory_bytes)),
            ("time", (low if low == high else f"{low} to {high}") + probing + reading),
            *([("shares", _shares_cost(cost))] if cost.kept_runs else []),
            ("energy", f"{human_joules(cost.joules)}  ({cost.joules_source})"),
            ("money", f"unknown: {cost.dollars_reason}"),
        ]
    )


def _shares_cost(cost: StudyDryRun) -> str:
    return (
        f"{cost.kept_runs} runs on kept shares of the text, {human_seconds(cost.kept_seconds)} of this time, and about"
        f" {human_seconds(cost.select_seconds)} to select them"
    )


def study_table(study: StudyAnswer) -> str:
    """What a study found."""
    return lines(
        [
            *under("answer", [best_headline(study), *best_sentences(study)]),
            *under("sparse or dense", lead_sentences(study)),
            *under("next", [next_sentence(study), study.next]),
            *(under("probes", equal_loss_sentences(study.probes)) if study.probes else []),
            *(_share_rows(study.token_selection) if study.token_selection else []),
            *(under("less text", kept_sentences(study.selection)) if study.selection else []),
            *_law_rows(study),
            *_machine_rows(study.launch),
            ("report", study.report),
        ]
    )


def _share_rows(tokens: StudyTokens) -> Rows:
    cost = tokens.reference.cost
    paid = f"the reference model took {cost.flops:.3g} FLOPs and {human_seconds(cost.seconds)}, which no run counts"
    return [("tokens counted", f"{human_percent(tokens.share)} of each step in every run; {paid}")]


def _law_rows(study: StudyAnswer) -> Rows:
    law, cells = study.law, study.cells
    counted = f"{cells.finished} finished, {cells.diverged} diverged, in {human_seconds(study.wall_seconds)}"
    if law.refused:
        return [("cells", counted), ("law", f"refused: {law.refused}")]
    held = law.held_out
    errors = held and errors_words(held.median_relative_error, held.max_relative_error)
    checked = f"held-out budget predicted within {errors}" if held else "not checked: no budget was held out"
    band = study.near_optimal.sparsity
    near = f"sparsity {span_words(band)} (within 0.5 % of the best predicted loss)" if band else None
    return [
        ("cells", counted),
        ("law", f"{law.form}; {checked}"),
        *([("near-optimal", near)] if near else []),
        *(("limited by", bound) for bound in study.binding_constraints),
    ]


def _machine_rows(launch: Launch | None) -> Rows:
    """The machines, where there were several."""
    if launch is None or len(launch.hosts) < 2:
        return []
    return [("machines", machines_sentence(launch))]


def study_status_table(study: StudyStatus) -> str:
    """The progress of a study."""
    status = study.status + (f" in the phase '{study.phase}'" if study.phase else "")
    if study.status == "stopped":
        status += f"; last written {human_seconds(round(study.written_seconds_ago) or 1)} ago"
    phases = [
        (f"  {phase.name}", human_seconds(phase.seconds) + (f", {phase.runs} runs" if phase.runs else ""))
        for phase in study.phases
    ]
    diverged = f", {study.cells_diverged} diverged" if study.cells_diverged else ""
    return lines(
        [
            ("study", study.out),
            ("status", status),
            ("cells", f"{study.cells_finished} finished{diverged}; {study.cells_planned} were planned"),
            *phases,
            ("time so far", human_seconds(study.elapsed_seconds) if study.elapsed_seconds else "not known"),
            ("report", study.report or "not yet"),
        ]
    )


def forms_table(known: Forms) -> str:
    """The forms that a law may have."""
    return lines([(name, form.says) for name, form in known.forms.items()])


def profile_table(profile: Measured) -> str:
    """How fast this machine trains, and the profile's error."""
    memory, rows = profile.memory, profile.rows
    fastest = max(row.features["dense_flops"] / row.median_seconds for row in rows if not row.experts)
    errors = errors_words(profile.median_relative_error, profile.max_relative_error)
    table: list[tuple[str, str]] = [
        ("machine", f"{profile.machine.processor}, {profile.threads} threads, {profile.dtype}"),
        ("dense steps", f"up to {fastest / 1e9:.3g} GFLOP/s at {profile.batch} x {profile.context} tokens"),
        ("time", f"{len(rows)} shapes; each left out in turn is predicted within {errors}"),
    ]
    if memory:
        off = errors_words(memory.median_relative_error, memory.max_relative_error)
        table.append(
            ("memory", f"{len(memory.rows)} runs of ten steps; each left out in turn is predicted within {off}")
        )
    for row in (row for row in profile.at_once if row.runs > 1):
        what = f"{row.runs} runs of width {row.d_model} with {row.experts} experts"
        table.append(("at once", f"{what}: {row.times_one:.2f} times the steps of one"))
    return lines(
        [
            *table,
            ("power", f"{profile.watts:.3g} W: {profile.watts_source}"),
            ("written", profile.out),
            ("next", f"sparsedial plan --seconds 10d --device {shlex.quote(profile.out)}"),
        ]
    )


def train_dry_table(cost: TrainDryRun) -> str:
    """What a training run would cost."""
    parameters = f"{human_count(cost.total_parameters)} total, {human_count(cost.active_parameters)} active"
    rows = [
        ("parameters", parameters),
        ("tokens", _asked_words(cost.tokens, cost.tokens_asked)),
        ("FLOPs", _flops_words(cost.flops, cost.reference_cost)),
        ("memory", f"{human_bytes(cost.memory_bytes)}  ({cost.memory_source})"),
        *rank_rows(cost.ranks or ()),
    ]
    if cost.seconds is None:
        rows.append(("time, energy", cost.seconds_reason or "unknown"))
    else:
        paid = cost.reference_cost
        of_it = f", of which a reference model takes {human_seconds(paid.seconds)}" if paid else ""
        rows.append(("time", human_seconds(cost.seconds) + of_it))
        unknown = f"unknown: {cost.joules_reason}"
        known = cost.joules is not None and f"{human_joules(cost.joules)}  ({cost.joules_source})"
        rows.append(("energy", known or unknown))
    return lines([*rows, ("money", f"unknown: {cost.dollars_reason}")])


def _flops_words(flops: float, reference: ReferenceModelCost | None) -> str:
    """FLOPs, and how many of them a reference model takes."""
    return f"{flops:.3g}" + (f", of which a reference model takes {reference.flops:.3g}" if reference else "")


def train_table(run: Trained) -> str:
    """The result of a run."""
    rows = [("status", run.status + (f": {run.reason}" if run.reason else ""))]
    if run.test_loss is not None and run.test_bits_per_byte is not None:
        words = f"{run.test_loss:.4f} nats per token, {run.test_bits_per_byte:.4f} bits per byte"
        rows.append(("test loss", words))
    rows += [(f"  with {count_words(one.top_k_experts, 'expert')}", _dial_words(one)) for one in run.dial_losses or ()]
    rows.append(("tokens", f"{_learnt(run)} in {human_seconds(run.seconds)}"))
    if run.token_selection and run.reference_cost:
        rows.append(("tokens counted", f"{human_percent(run.token_selection.share)} of each step"))
        rows.append(("FLOPs", _flops_words(run.total_flops, run.reference_cost)))
        rows.append(("time in all", human_seconds(run.total_seconds)))
    if run.start:
        rows.append(("began with", run.start.path))
    for branch in run.branches:
        rows.append((f"branch of {human_count(branch.tokens)} tokens", _branch_words(branch)))
    if run.checkpoint:
        rows.append(("checkpoint", run.checkpoint))
    return lines(rows)


def _dial_words(one: DialLoss) -> str:
    """The loss at one number of a dial."""
    active = f"{human_count(one.active_parameters)} active parameters"
    return active if one.test_loss is None else f"{one.test_loss:.4f} nats per token, {active}"


def _learnt(run: Trained) -> str:
    """Tokens of a run; where it diverged, those that it reached."""
    if not run.finished:
        done = run.steps_done * run.recipe.batch * run.recipe.context
        return f"{human_count(done)} of {human_count(run.tokens)}"
    return _asked_words(run.tokens, run.tokens_asked)


def _asked_words(tokens: int, asked: float | None) -> str:
    """Tokens of a run, and the requested ones where large steps make a difference."""
    if asked is None or abs(tokens / asked - 1) < NOTABLE:
        return human_count(tokens)
    return f"{human_count(tokens)} ({human_count(asked)} were requested: a run has a whole number of steps)"


def _branch_words(branch: Branch) -> str:
    if branch.test_loss is None:
        return branch.status
    return f"{branch.test_loss:.4f} nats per token; it shares its trunk, so it is not an independent run"


def generate_table(answer: Generation) -> str:
    """Nothing: its text was written as it came."""
    return ""


def generate_note(answer: Generation) -> str:
    """The setting that wrote a text, and what that took."""
    setting, energy = answer.setting, answer.joules
    why = "" if answer.setting_reason in ("asked", "default") else f" ({answer.setting_reason})"
    wrote = f"{count_words(answer.tokens, 'token')} in {human_seconds(answer.seconds)}"
    average = "" if setting.neurons_share is None else " on average"
    parameters = f"{human_count(answer.active_parameters)} active parameters{average}"
    spent = f"{human_joules(energy.joules)} {energy.basis}"
    return f"{setting.name}{why}: {parameters}, {wrote}, {spent}; weights in {answer.dtype}"


def served_table(answer: Served) -> str:
    """Nothing: the page, or the server, has shown everything."""
    return ""


def table_of(answer: Record) -> str:
    """The table of an answer, for people."""
    return TABLES[type(answer)](answer)


TABLES: Mapping[type[Record], Callable[[Any], str]] = {
    StudyAnswer: study_table,
    StudyDryRun: study_dry_table,
    StudyStatus: study_status_table,
    JoinAnswer: join_table,
    Counts: count_table,
    Fit: fit_table,
    Forms: forms_table,
    Predicted: predicted_table,
    Plan: plan_table,
    Measured: profile_table,
    Trained: train_table,
    TrainDryRun: train_dry_table,
    Evaluation: evaluate_table,
    Evaluations: evaluations_table,
    EvaluateDryRun: evaluate_dry_table,
    Selected: select_table,
    SelectionPipeline: pipeline_table,
    EffectDryRun: effect_dry_table,
    Pruned: prune_table,
    PruneDryRun: prune_dry_table,
    DialDryRun: dial_dry_table,
    FixedSetting: fixed_table,
    Compared: compare_table,
    SplitExperts: split_table,
    JoinedExperts: joined_table,
    Generation: generate_table,
    Served: served_table,
    ServeDryRun: serve_table,
    MeasuredDial: dial_table,
}
