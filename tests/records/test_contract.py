"""Every key of every file and answer, spelled a second time: a renamed, a missing and an additional key fail here.

A new record needs an entry in KEYS, and a field that may be null a `…_reason` beside it or an entry in MEANT.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
import typing
from collections.abc import Iterator
from typing import Any

from sparsedial import records
from sparsedial.records.recipe import Recipe
from sparsedial.records.record import Record
from sparsedial.records.study import Study, StudyAnswer
from sparsedial.shape.ladder import Ladder
from tests.records.held import unexplained


def table(text: str) -> dict[str, tuple[str, ...]]:
    """Names and their words; a line that is set in goes on with the one before."""
    entries = re.findall(r"^(\w+):((?:.|\n )*)", text, re.MULTILINE)
    assert len({name for name, _ in entries}) == len(entries), "a name stands there twice"
    return {name: tuple(words.split()) for name, words in entries}


# The keys of each record, in the order in which they are written.
KEYS = table("""
Sparsity: experts parameters activation_ratio
Interval: mean low high
Gap: mean low high
Amount: currency value
Load: max_over_mean dead_experts entropy
Machine: processor cores memory_bytes system python gpus
Recipe: learning_rate steps batch context optimizer schedule weight_decay beta1 beta2 epsilon warmup_share
    warmup_steps decay_share width_base clip balance_rate balance_weight z_loss_weight mtp_weight mtp_late_weight
    spike_sigmas dtype seed
Ladder: vocab_size context top_k shared_experts
Event: kind step loss batch_skipped back_to_step
RunInputs: hash trunk shape recipe recipe_version text_digest tokenizer device threads kernels tokens flops
    total_parameters active_parameters sparsity dial start
TrainedFor: top_k_experts by
DialLoss: top_k_experts active_parameters validation_loss validation_bits_per_byte test_loss test_bits_per_byte
Run: hash trunk shape recipe recipe_version text_digest tokenizer device threads kernels tokens flops
    total_parameters active_parameters sparsity dial start status reason steps_done train_loss validation_loss
    validation_bits_per_byte test_loss test_bits_per_byte seconds median_step_seconds evaluation_seconds joules
    joules_source peak_memory_bytes expert_load repeats alone machine_busy trunk_steps_shared events probes
    dial_losses
Metric: index loss gradient_norm learning_rate seconds tokens max_over_mean dead_experts entropy bias_drift
StepTiming: shape d_model experts features median_seconds low_seconds high_seconds count
StepMemory: shape batch context state_bytes activation_bytes peak_bytes
MemoryFile: process_bytes state_factor activation_factor median_relative_error max_relative_error rows
ProfileFile: machine device threads dtype batch context coefficients median_relative_error max_relative_error
    error_quantile watts watts_source metered rows memory
HeldOut: runs budgets_flops rmse_log_loss median_relative_error max_relative_error baselines law_on_the_same
    regret_of_predicted_best
FormTrial: rms_log_error refused
Comparison: rule forms taken
Outlier: row loss predicted_loss spreads
Misfit: variable share p_value
LawFile: form coefficients intervals confidence samples runs rmse_log_loss fitted_range undetermined seed
    open_coefficients outliers misfit held_out held_out_reason refused source compared
    counting
FormWords: says source
Forms: forms
Fit: form coefficients intervals intervals_reason confidence runs independent_runs rmse_log_loss held_out
    held_out_reason undetermined open_coefficients outliers misfit allocations allocations_reason predicted refused
    compared dropped_rows dropped_reason cells notes out
Estimate: value low high
BestAt: flops size tokens loss beyond
Minimum: flops size tokens runs
Parabolas: size_exponent tokens_exponent minima budgets_left_out size_exponent_on_law bias
Allocation: held size flops_factor flops_factors budgets_flops size_exponent tokens_exponent at at_reason parabolas
    parabolas_reason
Predicted: table out rows rows_beyond form source intervals_reason median_relative_error max_relative_error
PlanBudget: currency value target_loss
PredictedLoss: mean low high interval_basis interval_reason
MemoryParts: weights_bytes moments_bytes casts_bytes gradients_bytes activations_bytes
TrainingCosts: flops memory_bytes memory_parts memory_source serving_memory_bytes seconds seconds_low seconds_high
    joules dollars seconds_reason joules_reason dollars_reason joules_low joules_high joules_basis dollars_low
    dollars_high
PlanMachine: name devices watts dollars_per_hour peak_flops_per_second memory_bytes utilisation_dense
    utilisation_sparse source machine median_relative_error
Rival: shape tokens total_parameters cost predicted_loss costs
Crossover: currency value low high interval_reason searched within_fitted_range within_fitted_range_reason
Race: currency budgets dense_loss sparse_loss crossover crossover_reason
SampledOptimum: confidence sparsity total_parameters active_parameters tokens
NearOptimal: sparsity sparsity_reason total_parameters active_parameters tokens sampled
OtherAnswer: sparsity experts top_k total_parameters active_parameters tokens loss leverage_of_this_shape at_flops
    budget_share extrapolation
OtherLaw: law held_fixed answer answer_reason
Export: trainer file command written_for not_expressed
PlanOrigin: tokenizer tokenizer_folder text_digest context law_digest profile_digest
Plan: budget law law_source shape tokens total_parameters active_parameters sparsity predicted_loss costs machine
    dense_rival dense_rival_reason crossover crossover_reason binding_constraints near_optimal
    tokens_per_total_parameter other_laws warnings candidates recipe recipe_source exported marks extrapolation
    gap_to_dense gap_to_dense_reason winner origin
    origin_reason cost best_sparsity_reason
Position: sparsity shape tokens total_parameters active_parameters predicted_loss costs binding_constraints warnings
    marks
Positions: budget positions best dense gap_to_dense gap_to_dense_reason winner machine near_optimal no_choice_reason
BestModel: shape sparsity tokens total_parameters active_parameters budget_flops loss split sparsest_tried open_size
    sparsity_interval sparsity_interval_confidence sparsity_interval_reason
Side: shape sparsity tokens total_parameters active_parameters loss bits_per_byte flops seconds joules joules_source
    learning_rate checkpoint runs named_by sent_because
CostMiss: words worth_nats
Verdict: winner reason budget sparse dense gap confidence seeds basis cost_miss
Verdicts: flops seconds joules
TokenizerWords: name vocab_size digest
HeldOutCounts: validation test
OverlapShares: validation test test_in_validation window_bytes sampled_windows
TokenizerName: name digest
SplitFile: documents bytes tokens sha256 lengths_sha256
SplitFiles: train validation test
ManifestFile: sha256 bytes
SkippedLines: lines named
MixedProbes: share seed documents tokens bytes
ProbeScore: items answer_bits_per_byte exact chance p_value at_chance
ProbedCell: run sparsity loss probes
EqualLossEffect: effect_of_sparsity unit cells resolved sentence
StudyProbes: share seed cells reading_at_equal_loss facts_at_equal_loss
TextFile: kind request tokenizer sources source_digest python_version files_left_out split_by documents_cut
    duplicates_removed duplicates_in_train splits manifest overlap documents_changed_by_tokenizer skipped probes
    selection digest
SelectionOf: manifest_digest documents_left_out
SelectedManifest: path digest bytes
TextAmount: documents bytes tokens
DomainAmounts: read kept
Filter: name says source threshold removed examples
Selected: manifest text_digest sources near keep score seed read kept held_out tokens_reason domains filters
    skipped_lines contaminated contaminated_reason effect effect_reason warnings wall_seconds peak_process_bytes
Progress: next_step seconds joules step_seconds losses metrics skipped events shared
StateFile: key tensors sha256 next_step progress
TextSummary: digest train_tokens validation_tokens test_tokens bytes documents tokenizer sources source_digest
    python_version files_left_out split_by documents_cut duplicates_removed duplicates_in_train overlap
    documents_changed_by_tokenizer
Cell: d_model experts budget_flops
PhaseSeconds: learning_rates grid verdict
LayoutFile: ladder batch budgets experts seeds max_total_parameters cell_seeds cells predicted_seconds
Scan: d_model experts active_parameters experts_per_choice tokens points optimum interior
RateModel: rate reference exponents
LearningRates: scans model
CellPrediction: d_model experts loss low high
Prediction: form coefficients comparison cells
RunRow: hash d_model layers experts top_k sparsity active_parameters total_parameters tokens flops loss
    bits_per_byte seconds joules alone learning_rate status reason expert_load repeats seed
CellRow: hash d_model layers experts top_k sparsity active_parameters total_parameters tokens flops loss
    bits_per_byte seconds joules alone learning_rate status reason expert_load repeats seed budget_flops seed_losses
    learning_rate_optimum_distance held_out predicted_loss predicted_low predicted_high
VerdictRow: hash d_model layers experts top_k sparsity active_parameters total_parameters tokens flops loss
    bits_per_byte seconds joules alone learning_rate status reason expert_load repeats seed currency family
    test_loss curve
LawCurve: budget_flops experts active_parameters loss low high
Inputs: time budgets sparsities top_k shared_experts tokenizer context batch max_total_parameters memory seeds seed
    cell_seeds form device probes text
Frozen: inputs layout profile_digest evaluation_tokens set_up_seconds
Phase: name seconds runs
CellCounts: planned finished diverged
VerdictSeeds: flops seconds
RunningStudy: status frozen learning_rates elapsed_seconds phase phases prediction cells selection_seeds
    verdict_seeds
LawSummary: form coefficients intervals confidence undetermined rmse_log_loss held_out held_out_reason refused
    comparison
ProfileSummary: median_relative_error max_relative_error watts watts_source metered
Study: status best frozen learning_rates elapsed_seconds phase phases prediction cells selection_seeds verdict_seeds
    budgets_flops sparsities text machine law verdict near_optimal binding_constraints crossover crossover_reason
    cells_table verdict_runs law_curves profile seed_noise seed_noise_reason probes versions next wall_seconds report
StudyAnswer: best cells budgets_flops sparsities text machine versions wall_seconds law verdict near_optimal
    binding_constraints crossover crossover_reason probes next report
StudyStatus: out status written_seconds_ago phase phases cells_planned cells_finished cells_diverged runs_finished
    elapsed_seconds report
Setting: name top_k_experts top_p_experts skip_layers sparsity active_parameters
StudyDryRun: dry_run cells largest_total_parameters budgets_flops flops seconds seconds_low seconds_high
    probe_seconds joules joules_source memory_bytes dollars dollars_reason
TrainDryRun: dry_run total_parameters active_parameters tokens flops memory_parts memory_bytes guard_copy_bytes
    memory_source seconds seconds_reason joules joules_source joules_reason dollars dollars_reason tokens_asked
Counts: name total_parameters active_parameters active_parameters_one_embedding active_parameters_no_embedding
    sparsity forward_flops_per_token training_flops_per_token context_tokens dtype weight_bytes
    kv_cache_bytes_per_token
Joules: joules low high basis source
TaskScore: version licence source data_digest shots items items_truncated items_left_out metrics primary chance
    at_chance p_value answer_bits_per_byte gold_rank margin_nats items_per_second joules_per_item contaminated_items
    metrics_without_contaminated
Harness: name version
CheckpointName: path digest family
Evaluation: checkpoint setting loss bits_per_byte tokens bytes loss_interval bits_per_byte_interval interval_over
    context_tokens stride_tokens domains expert_load skipped tasks harness machine wall_seconds
PairedDifference: mean low high items p_value
Paired: task metric first second difference
Evaluations: results paired comparisons
TaskSize: items items_too_long tokens tokens_written
EvaluateDryRun: tasks items tokens tokens_written seconds
KeptAnswer: asked nats greedy text
Judged: checkpoint task id choices_nats gold chosen text contaminated
DomainLoss: loss bits_per_byte tokens bytes loss_interval bits_per_byte_interval interval_over
Quantiles: median p10 p90 count
CheckpointCosts: total_parameters active_parameters sparsity weight_bytes disk_bytes disk_bytes_reason loss tasks
    prefill_tokens_per_second prefill_tokens_per_second_reason decode_tokens_per_second decode_tokens_per_second_reason
    peak_memory_bytes peak_memory_bytes_reason joules_per_token joules_per_token_reason
PrunedFolder: path digest family read_by
FixedSetting: checkpoint out setting weight_bytes wall_seconds
PruneTarget: kind asked reached
KeptParts: experts layers d_ff weights_share
CalibrationText: source digest tokens windows context_tokens
SecondDomain: source digest tokens
Pruned: checkpoint out part method budget sequential pattern target kept scores unscored_experts calibration
    second_domain second_domain_reason before after control control_draws control_reason loss_increase search recovery
    warnings wall_seconds peak_process_bytes
DraftCounts: made accepted
Generation: prompt text prompt_tokens tokens seconds drafts setting setting_reason active_parameters joules
DialPoint: setting status loss_increase loss_increase_reason costs costs_reason
DialFile: checkpoint_digest default trained_for settings text_digest machine versions
MeasuredDial: checkpoint_digest default trained_for settings text_digest machine versions out wall_seconds
Branch: hash trunk tokens status validation_loss test_loss trunk_steps_shared
Trained: hash trunk shape recipe recipe_version text_digest tokenizer device threads kernels tokens flops
    total_parameters active_parameters sparsity dial start status reason steps_done train_loss validation_loss
    validation_bits_per_byte test_loss test_bits_per_byte seconds median_step_seconds evaluation_seconds joules
    joules_source peak_memory_bytes expert_load repeats alone machine_busy trunk_steps_shared events probes
    dial_losses checkpoint branches tokens_asked
TrainSettingsFile: plan model text tokenizer shape recipe runs plan_edited dial
Measured: machine device threads dtype batch context coefficients median_relative_error max_relative_error
    error_quantile watts watts_source metered rows memory out
Served: served
Choice: name words
PageStart: law laws devices study state
Told: text more
PositionWords: sparsity short shape loss gap parameters active tokens time energy money memory serving amounts
PagePosition: sparsity shape tokens total_parameters active_parameters predicted_loss costs binding_constraints
    warnings marks words
PageChart: axis log values low high beyond beyond_axis
PageDial: budget positions best dense gap_to_dense gap_to_dense_reason winner machine near_optimal no_choice_reason law
    words more gap_label chart caption command csv unknown_amounts
Tick: value text
PageRace: currency budgets dense_loss sparse_loss crossover crossover_reason words gap axis ticks
PageProblem: error hint fields
""")

# Fields that may be null with no reason of their own: what it means is said at the field or by a `reason` nearby.
MEANT = table("""
Interval: low high
Amount: value
Event: loss
RunInputs: trunk dial start
Run: train_loss validation_loss validation_bits_per_byte test_loss test_bits_per_byte expert_load machine_busy probes
    dial_losses
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
PlanOrigin: profile_digest
Rival: costs
Plan: machine winner cost
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
Selected: keep score domains
TextSummary: python_version
LayoutFile: max_total_parameters predicted_seconds
Scan: optimum
RunRow: loss bits_per_byte joules expert_load
CellRow: predicted_loss predicted_low predicted_high
VerdictRow: test_loss
Inputs: time context max_total_parameters memory seeds form probes
Frozen: set_up_seconds
Phase: runs
RunningStudy: learning_rates phase prediction cells selection_seeds verdict_seeds
LawSummary: form confidence rmse_log_loss refused
EqualLossEffect: effect_of_sparsity
Study: best phase prediction selection_seeds probes
StudyAnswer: best probes
StudyStatus: phase report
Setting: top_k_experts top_p_experts
TrainDryRun: joules_source tokens_asked
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
Pruned: pattern
Generation: drafts
DialFile: trained_for
Branch: trunk validation_loss test_loss
Trained: checkpoint tokens_asked
TrainSettingsFile: plan model dial
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
