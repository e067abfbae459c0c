"""The keys of every record, spelled a second time, in the order in which they are written."""

from __future__ import annotations

import re


def table(text: str) -> dict[str, tuple[str, ...]]:
    """Names and their words; a line that is set in goes on with the one before."""
    entries = re.findall(r"^(\w+):((?:.|\n )*)", text, re.MULTILINE)
    assert len({name for name, _ in entries}) == len(entries), "a name stands there twice"
    return {name: tuple(words.split()) for name, words in entries}


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
    total_parameters active_parameters sparsity dial start token_selection
TokenSelection: share reference losses_sha256
ReferenceModelCost: training_flops scoring_flops seconds
ReferenceLossesFile: reference run text_digest context_tokens stride_tokens tokens loss step_nats tokens_above sha256
    cost
StudyTokens: share reference
TrainedFor: top_k_experts by end
DialLoss: top_k_experts active_parameters validation_loss validation_bits_per_byte test_loss test_bits_per_byte
Run: hash trunk shape recipe recipe_version text_digest tokenizer device threads kernels tokens flops
    total_parameters active_parameters sparsity dial start token_selection status reason steps_done train_loss
    validation_loss validation_bits_per_byte test_loss test_bits_per_byte seconds median_step_seconds
    evaluation_seconds joules joules_source peak_memory_bytes expert_load repeats alone machine_busy
    trunk_steps_shared events probes
    dial_losses reference_cost ranks checkpoints resumes
Mesh: data shard expert
RankHost: name ranks
RunRanks: count mesh backend hosts
SavedStates: kept seconds overlap_cost overlap_cost_reason bytes
Resume: step ranks reason
Metric: index loss gradient_norm learning_rate seconds tokens max_over_mean dead_experts entropy bias_drift
StepTiming: shape d_model experts features median_seconds low_seconds high_seconds count
StepMemory: shape batch context state_bytes activation_bytes peak_bytes
MemoryFile: process_bytes state_factor activation_factor median_relative_error max_relative_error rows
ProfileFile: machine device threads dtype optimizer batch context coefficients median_relative_error max_relative_error
    error_quantile watts watts_source metered rows memory at_once
AtOnceTiming: d_model experts step_seconds start_seconds runs times_one
TileSizes: rows columns depth warps stages layer_seconds
TilesFile: gpu triton kernels tried
HeldOut: runs budgets_flops rmse_log_loss median_relative_error max_relative_error baselines law_on_the_same
    regret_of_predicted_best
FormTrial: rms_log_error refused
Comparison: rule forms taken
Outlier: row loss predicted_loss spreads
Misfit: variable share p_value
Prior: value log_spread
LawFile: form coefficients intervals confidence samples runs rmse_log_loss fitted_range undetermined seed
    open_coefficients outliers misfit priors held_out held_out_reason refused source compared
    counting
FormWords: says source
Forms: forms
Fit: form coefficients intervals intervals_reason confidence runs independent_runs rmse_log_loss held_out
    held_out_reason undetermined open_coefficients outliers misfit priors allocations allocations_reason predicted
    refused compared dropped_rows dropped_reason cells notes out
Estimate: value low high
BestAt: flops size tokens loss beyond
Minimum: flops size tokens runs
Parabolas: size_exponent tokens_exponent minima budgets_left_out size_exponent_on_law bias
Allocation: held size flops_factor flops_factors budgets_flops size_exponent tokens_exponent at at_reason parabolas
    parabolas_reason
Predicted: table out rows rows_beyond form source intervals_reason median_relative_error max_relative_error notes
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
PlanOrigin: tokenizer tokenizer_folder text_digest context law_digest profile_digest token_share
Plan: budget law law_source shape tokens total_parameters active_parameters sparsity predicted_loss costs machine
    dense_rival dense_rival_reason crossover crossover_reason binding_constraints near_optimal
    tokens_per_total_parameter other_laws warnings candidates recipe recipe_source exported marks extrapolation
    gap_to_dense gap_to_dense_reason winner origin
    origin_reason cost best_sparsity_reason out
Position: sparsity shape tokens total_parameters active_parameters predicted_loss costs binding_constraints warnings
    marks
Positions: budget positions best dense gap_to_dense gap_to_dense_reason winner machine near_optimal no_choice_reason
BestModel: shape sparsity tokens total_parameters active_parameters optimizer budget_flops loss split sparsest_tried
    open_size sparsity_interval sparsity_interval_confidence sparsity_interval_reason
Side: shape sparsity tokens total_parameters active_parameters loss bits_per_byte flops seconds joules joules_source
    optimizer learning_rate checkpoint runs named_by sent_because
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
DomainAmounts: read kept share_before share_after
Filter: name says source threshold removed examples
ReferenceModel: shape run tokens validation_loss documents_scored tokens_scored training_flops scoring_flops seconds
Selected: manifest text_digest sources near keep score seed read kept held_out tokens_reason domains filters
    skipped_lines contaminated contaminated_reason effect effect_reason warnings wall_seconds peak_process_bytes side
    keep_by quality spans repeated_spans tasks items reference
SelectionPipeline: peer file command written_for kept
RepeatedSpans: documents spans bytes
ContaminatedTask: task judged items documents
EffectInputs: time budgets seeds tokenizer device manifest_digest selection_flops probes
EffectBudget: budget_flops shape steps steps_at_equal_total learning_rate
EffectPlan: inputs budgets batch context predicted_seconds
EffectPoint: part budget_flops flops tokens repeats loss bits_per_byte validation_loss domains probes probes_reason runs
    diverged
EqualTotal: selection_flops budgets_flops points kept_minus_random kept_minus_full winner sentence
Effect: budgets_flops seeds confidence points kept_minus_random kept_minus_full winner direction_over_budgets
    change_over_budgets direction_against_full sentence direction_sentence repeats_sentence equal_total
    equal_total_reason plan random_digest flops seconds
KeptRuns: budgets_flops at_equal_total
KeptShare: kept train_tokens text_digest manifest_digest folder
KeptPoint: kept family budget_flops shape flops tokens repeats seeds loss bits_per_byte validation_loss runs diverged
SparseMinusDense: kept budget_flops difference change moves
BestPair: kept family
Pairing: best undecided gap next_best
EqualTotalPairs: selection_flops points sparse_minus_dense pairing sentence
StudySelection: method manifest_digest shares selection_flops seeds confidence budgets_flops points sparse_minus_dense
    best undecided gap next_best sentence repeats_sentence equal_total equal_total_reason
Progress: next_step seconds joules step_seconds losses metrics skipped events shared states states_seconds
    resumes stopped
StateFile: key tensors sha256 next_step progress
TextSummary: digest train_tokens validation_tokens test_tokens bytes documents tokenizer sources source_digest
    python_version files_left_out split_by documents_cut duplicates_removed duplicates_in_train overlap
    documents_changed_by_tokenizer
Cell: d_model experts budget_flops
PhaseSeconds: learning_rates grid verdict kept_shares
LayoutFile: ladder batch budgets experts seeds max_total_parameters cell_seeds optimizers cells predicted_seconds
Scan: d_model experts active_parameters experts_per_choice tokens points optimum interior
RateModel: rate reference exponents
LearningRates: optimizer scans model
CellPrediction: d_model experts loss low high
Prediction: form coefficients comparison cells
RunRow: hash d_model layers experts top_k sparsity active_parameters total_parameters tokens flops loss
    bits_per_byte seconds joules alone optimizer learning_rate status reason expert_load repeats seed
CellRow: hash d_model layers experts top_k sparsity active_parameters total_parameters tokens flops loss
    bits_per_byte seconds joules alone optimizer learning_rate status reason expert_load repeats seed budget_flops
    seed_losses learning_rate_optimum_distance held_out predicted_loss predicted_low predicted_high
VerdictRow: hash d_model layers experts top_k sparsity active_parameters total_parameters tokens flops loss
    bits_per_byte seconds joules alone optimizer learning_rate status reason expert_load repeats seed currency family
    test_loss curve
LawCurve: budget_flops experts active_parameters loss low high
Inputs: time budgets sparsities top_k shared_experts tokenizer context batch max_total_parameters memory seeds seed
    cell_seeds form device probes token_share reference select keep optimizers text
Frozen: inputs layout profile_digest evaluation_tokens set_up_seconds
Phase: name seconds runs
CellCounts: planned finished diverged
VerdictSeeds: flops seconds
TimedSteps: dense sparse
RunningStudy: status frozen learning_rates other_learning_rates elapsed_seconds phase phases prediction cells
    selection_seeds verdict_seeds timed_steps kept_runs launch
LawSummary: form coefficients intervals confidence undetermined rmse_log_loss held_out held_out_reason refused
    comparison
ProfileSummary: median_relative_error max_relative_error watts watts_source metered
Study: status best frozen learning_rates other_learning_rates elapsed_seconds phase phases prediction cells
    selection_seeds verdict_seeds timed_steps budgets_flops sparsities text machine law verdict near_optimal
    binding_constraints crossover
    crossover_reason cells_table verdict_runs law_curves profile seed_noise seed_noise_reason probes token_selection
    selection launch versions next wall_seconds report
StudyAnswer: best cells budgets_flops sparsities text machine versions wall_seconds law verdict near_optimal
    binding_constraints crossover crossover_reason probes token_selection selection launch next report
StudyStatus: out status written_seconds_ago phase phases cells_planned cells_finished cells_diverged runs_finished
    elapsed_seconds report
Meeting: host addresses port key
Setup: versions recipe_version kernels build instructions processor python
Hello: host process setup
Admission: refused
HostRuns: name runs
LaunchSoFar: kind first hosts attempts attempts_superseded
LaunchHost: name profile_digest profile_digest_reason cells runs
Launch: kind hosts attempts attempts_superseded
JoinAnswer: study host workers runs seconds
Setting: name top_k_experts top_p_experts neurons_share skip_layers sparsity active_parameters
StudyDryRun: dry_run cells largest_total_parameters budgets_flops flops seconds seconds_low seconds_high
    probe_seconds reference_cost kept_runs kept_seconds select_seconds joules joules_source memory_bytes dollars
    dollars_reason
EffectDryRun: dry_run parts seeds runs budgets_flops total_parameters tokens flops seconds not_counted joules
    joules_source memory_bytes dollars dollars_reason
PruneDryRun: dry_run total_parameters active_parameters keep left_total_parameters left_active_parameters left_reason
    choices search_steps calibration_tokens scored_tokens seconds not_counted memory_bytes memory_bytes_reason
    disk_bytes
DialDryRun: dry_run total_parameters active_parameters settings calibration_tokens scored_tokens seconds not_counted
    memory_bytes
TrainDryRun: dry_run total_parameters active_parameters tokens flops memory_parts memory_bytes guard_copy_bytes
    memory_source seconds seconds_reason joules joules_source joules_reason dollars dollars_reason tokens_asked
    reference_cost ranks
RankCosts: rank parameters memory_bytes bytes_per_step step_seconds step_seconds_reason
RankMemory: weights gradients optimizer activations buffers
RankBytes: all_gather reduce_scatter all_reduce all_to_all
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
SearchStep: keep loss_increase speed
KeptParts: experts layers d_ff weights_share
CalibrationText: source digest tokens windows context_tokens
SecondDomain: source digest tokens taken
TakenFile: divergence_bits median_divergence_bits bytes_share files
Pruned: checkpoint out part method budget sequential pattern target keep kept scores unscored_experts calibration
    second_domain second_domain_reason before after control control_draws control_reason loss_increase search recovery
    warnings wall_seconds peak_process_bytes equal_cost
EqualCost: active_parameters pruned lower_k lower_k_reason lower_k_setting trained_sparser trained_shape tokens winner
    basis
Recovery: tokens kind flops seconds joules learning_rate repeats loss_after_cut won_back
ComparedPoint: part method budget sequential pattern target draws kept unscored_experts after loss_increase warnings
MeasuredPoint: point shape
MethodOrder: part strength order gaps resolved unresolved_reason
Compared: checkpoint calibration second_domain second_domain_reason before points axis pareto orders picture out
    wall_seconds peak_process_bytes
SplitOrigin: original config neurons weights_digest
SplitTarget: kind asked reached
SplitPoint: setting neurons_share costs loss_increase at_random at_random_reason removed removed_reason
SplitExperts: checkpoint out method sequential target always top_k d_expert kept scores unscored_experts calibration
    second_domain second_domain_reason before after control control_draws control_reason dial search recovery warnings
    wall_seconds peak_process_bytes
JoinedExperts: checkpoint out original same_weights weight_bytes wall_seconds
DraftCounts: made accepted
Generation: prompt text prompt_tokens tokens seconds dtype drafts setting setting_reason active_parameters joules
DialPoint: setting status loss_increase loss_increase_reason costs costs_reason
DialFile: checkpoint_digest default trained_for settings text_digest calibration gates_sha256 warnings machine versions
MeasuredDial: checkpoint_digest default trained_for settings text_digest calibration gates_sha256 warnings machine
    versions out wall_seconds
Branch: hash trunk tokens status validation_loss test_loss trunk_steps_shared
Trained: hash trunk shape recipe recipe_version text_digest tokenizer device threads kernels tokens flops
    total_parameters active_parameters sparsity dial start token_selection status reason steps_done train_loss
    validation_loss validation_bits_per_byte test_loss test_bits_per_byte seconds median_step_seconds
    evaluation_seconds joules joules_source peak_memory_bytes expert_load repeats alone machine_busy
    trunk_steps_shared events probes
    dial_losses reference_cost ranks
    checkpoints resumes checkpoint branches tokens_asked
TrainSettingsFile: plan model text tokenizer shape recipe runs plan_edited dial token_selection
Measured: machine device threads dtype optimizer batch context coefficients median_relative_error max_relative_error
    error_quantile watts watts_source metered rows memory at_once out
Served: served
TextPart: type text
ChatMessage: role content name annotations tool_calls
StreamOptions: include_usage include_obfuscation
DialRequest: setting top_k_experts top_p_experts neurons_share skip_layers at_least_tokens_per_second
    at_most_joules_per_100_tokens max_loss_increase
JsonSchema: schema name description strict
ResponseFormat: type json_schema
TextRequest: model dial max_tokens temperature top_p top_k seed frequency_penalty presence_penalty logit_bias stop n
    response_format stream stream_options
ChatRequest: model dial max_tokens temperature top_p top_k seed frequency_penalty presence_penalty logit_bias stop n
    response_format stream stream_options messages max_completion_tokens logprobs top_logprobs
CompletionRequest: model dial max_tokens temperature top_p top_k seed frequency_penalty presence_penalty logit_bias stop
    n response_format stream stream_options prompt logprobs echo
DialUsage: setting setting_reason top_k_experts active_parameters_per_token seconds waited_seconds joules joules_basis
    cached_prompt_tokens
Usage: prompt_tokens completion_tokens total_tokens dial
LikelyToken: token logprob bytes
ScoredToken: token logprob bytes top_logprobs
ChatLogprobs: content refusal
TextLogprobs: tokens token_logprobs top_logprobs text_offset
AnswerMessage: role content refusal
ChatChoice: index message logprobs finish_reason
TextChoice: index text logprobs finish_reason
FirstDelta: role content
Delta: content
ChunkChoice: index delta logprobs finish_reason
Reply: id object created model system_fingerprint
ChatReply: id object created model system_fingerprint choices usage
TextReply: id object created model system_fingerprint choices usage
ChatChunk: id object created model system_fingerprint choices usage
ServedModel: id object created owned_by default chat max_model_len dial loss loss_increase loss_increase_reason
ServedModels: object data
ErrorWords: message type param code
ErrorReply: error
Health: status model
ServeDryRun: dry_run name default settings dtype total_parameters weight_bytes slots context_tokens cache_bytes
    memory_bytes
Choice: name words
PageStart: law laws devices study state settings
PageSettings: heads rows points ticks note
SettingPoint: name active_parameters loss
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
