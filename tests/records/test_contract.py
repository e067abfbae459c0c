"""Every key of every file and answer, spelled a second time: a renamed, a missing and an additional key fail here.

A new record needs an entry in KEYS (keys.py), and a field that may be null a `…_reason` beside it or an entry in MEANT.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import typing
from collections.abc import Iterator
from typing import Any

from sparsedial import records
from sparsedial.records.recipe import Recipe
from sparsedial.records.record import Record
from sparsedial.records.study import Study, StudyAnswer
from sparsedial.shape.ladder import Ladder
from tests.records.held import unexplained
from tests.records.keys import KEYS, table

# Fields that may be null with no reason of their own: what it means is said at the field or by a `reason` nearby.
MEANT = table("""
Interval: low high
Amount: value
Event: loss
RunInputs: trunk dial start token_selection
ReferenceLossesFile: run
Run: train_loss validation_loss validation_bits_per_byte test_loss test_bits_per_byte expert_load machine_busy probes
    dial_losses reference_cost ranks checkpoints resumes
SavedStates: bytes
DialLoss: validation_loss validation_bits_per_byte test_loss test_bits_per_byte
Metric: loss gradient_norm max_over_mean dead_experts entropy bias_drift
ProfileFile: memory
HeldOut: law_on_the_same
FormTrial: rms_log_error refused
Comparison: taken
LawFile: misfit refused compared counting
Fit: form confidence rmse_log_loss undetermined misfit predicted refused compared out
Estimate: low high
Parabolas: size_exponent_on_law
Allocation: size_exponent tokens_exponent
Predicted: median_relative_error max_relative_error
PlanBudget: value target_loss
PredictedLoss: low high interval_basis
TrainingCosts: seconds_low seconds_high joules_low joules_high joules_basis dollars_low dollars_high
PlanMachine: dollars_per_hour peak_flops_per_second memory_bytes utilisation_dense utilisation_sparse source machine
    median_relative_error
Crossover: low high
NearOptimal: total_parameters active_parameters tokens sampled
OtherAnswer: sparsity experts top_k total_parameters active_parameters tokens loss leverage_of_this_shape at_flops
    budget_share extrapolation
PlanOrigin: profile_digest token_share
Rival: costs
Plan: machine winner cost out
Positions: dense winner machine
BestModel: open_size sparsity_interval_confidence
Side: checkpoint named_by sent_because
CostMiss: worth_nats
Verdict: sparse dense gap cost_miss
OverlapShares: validation test test_in_validation
SplitFile: lengths_sha256
TextFile: python_version manifest probes selection
TextAmount: tokens
Filter: threshold
DomainAmounts: share_before share_after
Selected: near keep score domains side spans repeated_spans items reference
EffectInputs: time probes
EffectBudget: steps_at_equal_total
EffectPoint: loss bits_per_byte validation_loss domains
Effect: change_over_budgets
KeptShare: manifest_digest folder
KeptPoint: loss bits_per_byte validation_loss
SparseMinusDense: difference change moves
Pairing: best gap next_best
StudySelection: best gap next_best repeats_sentence
PageStart: settings
TextSummary: python_version
LayoutFile: max_total_parameters predicted_seconds
Scan: optimum
RunRow: loss bits_per_byte joules expert_load
CellRow: predicted_loss predicted_low predicted_high
VerdictRow: test_loss
Inputs: time context max_total_parameters memory seeds form probes token_share reference select
Frozen: set_up_seconds
Phase: runs
RunningStudy: learning_rates other_learning_rates phase prediction cells selection_seeds verdict_seeds timed_steps
    kept_runs launch
LawSummary: form confidence rmse_log_loss refused
EqualLossEffect: effect_of_sparsity
Study: best phase prediction selection_seeds timed_steps probes token_selection selection launch
StudyAnswer: best probes token_selection selection launch
Admission: refused
LaunchSoFar: first
StudyDryRun: reference_cost
StudyStatus: phase report
SplitExperts: recovery
Setting: top_k_experts top_p_experts neurons_share
TrainDryRun: joules_source tokens_asked reference_cost ranks
PruneDryRun: keep left_total_parameters left_active_parameters disk_bytes
Joules: low high
TaskScore: licence source data_digest chance at_chance p_value answer_bits_per_byte gold_rank margin_nats
    items_per_second joules_per_item contaminated_items metrics_without_contaminated
Evaluation: setting loss bits_per_byte tokens bytes loss_interval bits_per_byte_interval interval_over
    context_tokens stride_tokens domains expert_load skipped tasks harness
PairedDifference: low high
KeptAnswer: nats greedy text
Judged: choices_nats gold chosen text contaminated
CheckpointCosts: tasks
KeptParts: experts d_ff weights_share
Pruned: pattern search recovery equal_cost
EqualCost: lower_k_setting
ComparedPoint: pattern
SearchStep: speed
SecondDomain: taken
Generation: drafts
DialFile: trained_for calibration gates_sha256
ChatMessage: name annotations tool_calls
DialRequest: setting top_k_experts top_p_experts neurons_share skip_layers at_least_tokens_per_second
    at_most_joules_per_100_tokens max_loss_increase
JsonSchema: name description strict
ResponseFormat: json_schema
TextRequest: model dial max_tokens top_k seed logit_bias response_format stream_options
ChatRequest: max_completion_tokens top_logprobs
CompletionRequest: logprobs
DialUsage: top_k_experts
ChatChoice: logprobs
ChunkChoice: logprobs
TextChoice: logprobs
TextReply: usage
ChatChunk: usage
ServedModel: chat loss
ErrorWords: param
Branch: trunk validation_loss test_loss
Trained: checkpoint tokens_asked
TrainSettingsFile: plan model dial token_selection
""")


def keys_of(cls: type) -> tuple[str, ...]:
    """The JSON keys of a record, or of a dataclass in one."""
    return cls.__struct_fields__ if issubclass(cls, Record) else tuple(field.name for field in dataclasses.fields(cls))


def hints_of(cls: type) -> dict[str, Any]:
    """The types of a record's fields."""
    return {name: hint for name, hint in typing.get_type_hints(cls).items() if name in keys_of(cls)}


def written() -> list[type]:
    """Every record of the package that has keys of its own, and the two dataclasses of our own in files."""
    for module in pkgutil.iter_modules(records.__path__):
        importlib.import_module(f"{records.__name__}.{module.name}")

    def below(cls: type) -> Iterator[type]:
        for one in cls.__subclasses__():
            yield one
            yield from below(one)

    ours = (cls for cls in below(Record) if cls.__module__.startswith("sparsedial."))
    return [*(cls for cls in ours if keys_of(cls) != keys_of(cls.__bases__[0])), Recipe, Ladder]


def test_every_record_has_exactly_the_keys_of_the_table():
    assert {cls.__name__: keys_of(cls) for cls in written()} == KEYS


def test_the_records_have_different_names():
    names = [cls.__name__ for cls in written()]
    assert sorted(names) == sorted(set(names))


def test_what_may_be_null_has_a_reason_or_a_meaning():
    bare = {}
    for cls in written():
        above = hints_of(cls.__bases__[0]) if issubclass(cls, Record) else {}
        nullable = [key for key, hint in hints_of(cls).items() if type(None) in typing.get_args(hint)]
        own = [key for key in nullable if key not in above and not key.endswith("reason")]
        unsaid = tuple(key for key in own if not {f"{key}_reason", f"{key}_source"} & set(keys_of(cls)))
        bare |= {cls.__name__: unsaid} if unsaid else {}
    assert bare == MEANT


def test_the_answer_of_a_study_is_a_part_of_its_record():
    whole, part = hints_of(Study), hints_of(StudyAnswer)
    assert part == {name: whole[name] for name in part}


def test_nulls_without_their_reason_are_found():
    values = {"a": None, "a_reason": None, "b": [{"c": None, "c_source": None, "c_reason": "none"}], "d": float("nan")}
    values |= {"e": 1, "e_reason": "but it is known", "low": None, "interval_reason": None}
    assert sorted(unexplained(values)) == ["a", "d", "e_reason", "low"]
