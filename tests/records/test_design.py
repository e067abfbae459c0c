"""Every key that DESIGN spells for other programs is a key of the record that prints it."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from typing import Any

import pytest

from sparsedial.records.answers import Counts, Generation
from sparsedial.records.compare import Compared, ComparedPoint, MethodOrder
from sparsedial.records.dial_file import DialFile, DialPoint
from sparsedial.records.domains import DomainLoss
from sparsedial.records.effect import Effect, EffectPoint
from sparsedial.records.evaluation import Evaluation, PairedDifference
from sparsedial.records.kept import KeptPoint, StudySelection
from sparsedial.records.law import Fit, HeldOut
from sparsedial.records.plan import Crossover, Plan
from sparsedial.records.probes import EqualLossEffect, ProbedCell, ProbeScore, StudyProbes
from sparsedial.records.prune import CheckpointCosts, EqualCost, Pruned, Recovery, SearchStep
from sparsedial.records.quantities import Sparsity
from sparsedial.records.record import Record, plain
from sparsedial.records.selection import DomainAmounts, Filter, Selected
from sparsedial.records.serving import ChatReply, DialRequest, ErrorReply, ServedModel, TextRequest
from sparsedial.records.setting import Setting
from sparsedial.records.split import SplitExperts
from sparsedial.records.study import StudyAnswer
from sparsedial.records.trained_for import TrainedFor
from sparsedial.records.verdict import Side, Verdict
from tests.records.held import unexplained
from tests.records.test_contract import hints_of
from tests.showing.synthetic import bare_record, study_record

# As DESIGN spells them, in "Commands and JSON that other programs rely on" and "Conventions of counting"; and
# those of `prune`, `select` and the server as CONTRACTS spells them.
DESIGN = {
    StudyAnswer: """
{"cells": {"planned", "finished", "diverged"}, "budgets_flops": […], "sparsities": [experts, …], "text": {"digest",
 "train_tokens", "bytes", "overlap"}, "machine": {…}, "versions": {…}, "wall_seconds", "law": {"form", "coefficients",
 "intervals", "confidence", "held_out": H, "refused"}, "verdict": {"flops": V, "seconds": V, "joules": V},
 "near_optimal": {"sparsity": [low, high]}, "binding_constraints": […],
 "crossover": X | null, "next": "a command to run on a bigger budget", "report"}""",
    Verdict: """
{"winner": "sparse" | "dense" | "undecided", "reason", "budget", "sparse": M, "dense": M, "gap": {"mean", "low",
 "high"}, "confidence", "seeds", "basis": "measured" | "estimated"}""",
    Side: """
{"shape", "sparsity", "tokens", "loss": {"mean", "low", "high"}, "bits_per_byte", "flops", "seconds", "joules",
 "checkpoint"}""",
    HeldOut: """
{"runs", "budgets_flops", "rmse_log_loss", "median_relative_error", "max_relative_error",
 "baselines": {name: median_relative_error}}""",
    Crossover: """{"currency", "value", "low", "high", "within_fitted_range"}""",
    Counts: """
{"name", "total_parameters", "active_parameters", "active_parameters_one_embedding", "active_parameters_no_embedding",
 "sparsity", "forward_flops_per_token", "training_flops_per_token", "context_tokens", "dtype", "weight_bytes",
 "kv_cache_bytes_per_token"}""",
    Sparsity: """{"experts", "parameters", "activation_ratio"}""",
    Fit: """
{"form", "coefficients": {…}, "intervals": {name: [low, high]}, "confidence", "runs", "rmse_log_loss",
 "held_out": H | null, "undetermined": [names], "refused": null | "reason"}""",
    Plan: """
{"budget": {"currency", "value"}, "law", "shape": {…}, "tokens", "total_parameters", "active_parameters", "sparsity",
 "predicted_loss": {"mean", "low", "high", "interval_basis"}, "costs": {"flops", "seconds", "joules", "dollars",
 "memory_bytes"}, "dense_rival": {"shape", "tokens", "predicted_loss"}, "crossover": X | null,
 "binding_constraints": […], "near_optimal": {"sparsity": [low, high]}, "other_laws": […], "warnings": […]}""",
    Evaluation: """{"loss", "bits_per_byte", "tokens", "bytes"}""",
    DomainLoss: """{"loss", "bits_per_byte", "tokens", "bytes"}""",
    StudyProbes: """{"share", "seed", "cells": […], "reading_at_equal_loss", "facts_at_equal_loss"}""",
    ProbedCell: """{"run", "sparsity", "loss", "probes"}""",
    ProbeScore: """
{"items", "answer_bits_per_byte": {"mean", "low", "high"}, "exact": {"mean", "low", "high"}, "chance", "p_value",
 "at_chance"}""",
    EqualLossEffect: """
{"effect_of_sparsity": {"mean", "low", "high"}, "unit", "cells", "resolved", "sentence"}""",
    StudySelection: """
{"method", "manifest_digest", "points": […], "best": {"kept", "family": "sparse" | "dense"}, "undecided": bool,
 "gap": {"mean", "low", "high"}, "sentence"}""",
    KeptPoint: """
{"kept", "family": "sparse" | "dense", "budget_flops", "seeds", "loss": {"mean", "low", "high"}, "repeats"}""",
    Pruned: """
{"checkpoint": {"path", "digest", "family"}, "out": {"path", "digest", "family", "read_by": […]}, "method",
 "sequential": bool, "target": {"kind": "keep" | "speed", "asked", "reached"},
 "kept": {"experts", "layers", "d_ff", "weights_share"}, "scores": "scores.parquet", "unscored_experts",
 "calibration": {"source", "digest", "tokens", "windows", "context_tokens"},
 "second_domain": {"source", "digest", "tokens"}, "before": C, "after": C, "control": C | null, "search", "recovery",
 "warnings": […], "wall_seconds", "peak_process_bytes"}""",
    Recovery: """
{"tokens", "kind": "loss" | "distillation", "flops", "seconds",
 "joules": {"joules", "low", "high", "basis", "source"}}""",
    EqualCost: """
{"active_parameters", "pruned": {"mean", "low", "high"}, "lower_k": {"mean", "low", "high"},
 "trained_sparser": {"mean", "low", "high"}, "winner", "basis"}""",
    Compared: """{"points": […], "pareto": […], "orders": […], "picture", "before": C}""",
    ComparedPoint: """
{"method", "sequential": bool, "target": {"kind", "asked", "reached"}, "kept": {"experts", "layers", "d_ff",
 "weights_share"}, "unscored_experts", "after": C, "warnings"}""",
    MethodOrder: """{"strength", "order": […], "resolved": bool}""",
    SearchStep: """{"keep", "loss_increase": {"mean", "low", "high"}}""",
    SplitExperts: """
{"checkpoint": {"path", "digest", "family"}, "out": {"path", "digest", "family", "read_by": […]}, "method",
 "sequential": bool, "target": {"kind": "split_experts", "asked", "reached"},
 "kept": {"experts", "layers", "d_ff", "weights_share"}, "scores": "scores.parquet", "unscored_experts",
 "calibration": {"source", "digest", "tokens", "windows", "context_tokens"},
 "second_domain": {"source", "digest", "tokens"}, "before": C, "after": C, "control": C | null, "search", "recovery",
 "warnings": […], "wall_seconds", "peak_process_bytes"}""",
    TrainedFor: """{"top_k_experts": [1, 2, 4], "by": "step" | "layer", "end": "highest" | "lowest"}""",
    Setting: """
{"name", "top_k_experts": K | [K per layer] | null, "top_p_experts": p | null, "skip_layers": [layer, …],
 "sparsity": {"experts", "parameters", "activation_ratio"}, "active_parameters"}""",
    DialFile: """
{"checkpoint_digest", "default": name,
 "trained_for": {"top_k_experts": [1, 2, 4], "by": "step" | "layer", "end": "highest" | "lowest"} | null,
 "settings": […], "text_digest", "machine", "versions"}""",
    DialPoint: """
{"setting": S, "status": "measured" | "declared", "loss_increase": {"mean", "low", "high"}, "costs": C}""",
    Generation: """
{"setting": S, "setting_reason", "active_parameters", "joules": {"joules", "low", "high", "basis", "source"}}""",
    TextRequest: """{"dial", "model"}""",
    DialRequest: """
{"setting", "top_k_experts", "top_p_experts", "skip_layers", "at_least_tokens_per_second",
 "at_most_joules_per_100_tokens", "max_loss_increase"}""",
    ChatReply: """
{"usage": {"prompt_tokens", "completion_tokens", "total_tokens", "dial": {"setting", "top_k_experts",
 "active_parameters_per_token", "seconds", "joules", "joules_basis", "cached_prompt_tokens"}}}""",
    ServedModel: """{"dial": S, "loss_increase": {"mean", "low", "high"}}""",
    ErrorReply: """{"error": {"message", "type", "param", "code"}}""",
    Selected: """
{"manifest": {"path", "digest"}, "text_digest", "read": {"documents", "bytes", "tokens"},
 "kept": {"documents", "bytes", "tokens"}, "domains": {…}, "filters": […], "skipped_lines", "contaminated", "effect",
 "wall_seconds", "peak_process_bytes"}""",
    Effect: """
{"budgets_flops": […], "seeds", "points": […], "kept_minus_random": […], "kept_minus_full": […],
 "winner": "kept" | "random" | "full" | "undecided", "direction_over_budgets": "grows" | "shrinks" | "unresolved"}""",
    EffectPoint: """
{"part": "kept" | "random" | "full", "budget_flops", "loss": {"mean", "low", "high"}, "domains", "probes",
 "repeats"}""",
    PairedDifference: """{"mean", "low", "high", "items", "p_value"}""",
    Filter: """{"name", "source", "threshold", "removed": {"documents", "bytes", "tokens"}, "examples"}""",
    DomainAmounts: """{"read": {"documents", "bytes", "tokens"}, "kept": {"documents", "bytes", "tokens"}}""",
    CheckpointCosts: """
{"total_parameters", "active_parameters", "sparsity", "weight_bytes", "disk_bytes", "loss", "tasks",
 "prefill_tokens_per_second": {"median", "p10", "p90", "count"}, "decode_tokens_per_second", "peak_memory_bytes",
 "joules_per_token": {"joules", "low", "high", "basis", "source"}}""",
}
LETTERS = {"V": Verdict, "M": Side, "H": HeldOut, "X": Crossover, "C": CheckpointCosts, "S": Setting}
Tree = dict[str, Any]  # a key, and under it a tree, a letter or nothing


def tree_of(text: str) -> Tree:
    """The keys that DESIGN's JSON spells."""
    tokens = iter(re.findall(r'"[^"]*"|[{},:]|\b[VMHXCS]\b', re.sub(r"\[[^]]*\]", "", text)))
    assert next(tokens) == "{"
    return _tree(tokens)


def _tree(tokens: Iterator[str]) -> Tree:
    found: Tree = {}
    key, in_value = "", False
    for token in tokens:
        if token == "}":
            return found
        if token in (":", ","):
            in_value = token == ":"
        elif token == "{":
            found[key] = _tree(tokens)
        elif not in_value:
            key = token.strip('"')
            found[key] = None
        elif token in LETTERS:
            found[key] = token
    raise AssertionError("DESIGN's JSON is cut short")


TREES = {cls: tree_of(text) for cls, text in DESIGN.items()}


def record_in(hint: Any) -> type[Record]:
    """The record that a type is, or may be."""
    return next(one for one in (hint, *typing.get_args(hint)) if isinstance(one, type) and issubclass(one, Record))


def lacking(cls: type, tree: Tree, path: str = "") -> Iterator[str]:
    """Keys that DESIGN spells and a record lacks."""
    hints = hints_of(cls)
    for key, inner in tree.items():
        if key not in hints:
            yield path + key
        elif isinstance(inner, dict) and inner:
            yield from lacking(record_in(hints[key]), inner, f"{path}{key}.")
        elif isinstance(inner, str):
            assert record_in(hints[key]) is LETTERS[inner]


@pytest.mark.parametrize("cls", TREES, ids=lambda cls: cls.__name__)
def test_the_keys_of_design_are_keys_of_the_record(cls):
    assert TREES[cls]
    assert list(lacking(cls, TREES[cls])) == []


def test_a_key_that_design_spells_is_missed_where_it_lacks():
    assert list(lacking(Plan, tree_of('{"tokens", "costs": {"flops", "yen"}, "price"}'))) == ["costs.yen", "price"]


def letters_in(value: Tree, tree: Tree) -> Iterator[str]:
    """The letters of DESIGN whose objects are there, in a value that holds its keys."""
    assert set(tree) <= set(value)
    for key, inner in tree.items():
        if isinstance(inner, str) and value[key] is not None:
            yield inner
            yield from letters_in(value[key], TREES[LETTERS[inner]])
        elif isinstance(inner, dict) and value[key] is not None:
            yield from letters_in(value[key], inner)


def test_the_objects_of_design_occur_in_a_study():
    assert sorted(letters_in(plain(study_record().answer), TREES[StudyAnswer])) == sorted("HX" + 3 * "VMM")


def test_a_study_that_found_nothing_has_the_same_keys_and_says_why():
    bare = plain(bare_record().answer)
    assert list(letters_in(bare, TREES[StudyAnswer])) == ["V", "V", "V"]
    assert list(unexplained(bare)) == []
    assert bare["crossover_reason"] == bare["near_optimal"]["sparsity_reason"]
