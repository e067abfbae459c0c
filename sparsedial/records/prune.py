"""The answer of `prune`: what was turned off, and the four costs before, after, and for a random choice."""

from __future__ import annotations

from typing import ClassVar, Literal

from sparsedial.records.domains import DomainLoss
from sparsedial.records.evaluation import CheckpointName, Joules, TaskScore
from sparsedial.records.quantities import Interval, Sparsity
from sparsedial.records.record import Record
from sparsedial.records.setting import Setting
from sparsedial.shape.shape import Shape

PRUNE_FILE, SCORES_FILE = "prune.json", "scores.parquet"
RecoveryKind = Literal["loss", "distillation"]
Way = Literal["pruned", "lower_k", "trained_sparser"]  # to a model of so many active parameters
TargetKind = Literal["keep", "total_parameters", "active_parameters", "memory_bytes", "speed", "max_loss_increase"]


class Quantiles(Record, frozen=True, kw_only=True):
    """A timing: the median of its repetitions, and between what 80 % of them lie."""

    median: float
    p10: float
    p90: float
    count: int


class CheckpointCosts(Record, frozen=True, kw_only=True):
    """What a checkpoint is and costs: quality, speed, memory and energy."""

    total_parameters: int
    active_parameters: int
    sparsity: Sparsity
    weight_bytes: int
    disk_bytes: int | None  # of all files of its folder
    disk_bytes_reason: str | None
    loss: dict[str, DomainLoss]  # by text
    tasks: dict[str, TaskScore] | None  # null where none were asked for, and of random choices
    prefill_tokens_per_second: Quantiles | None  # of one sequence
    prefill_tokens_per_second_reason: str | None
    decode_tokens_per_second: Quantiles | None
    decode_tokens_per_second_reason: str | None
    peak_memory_bytes: int | None
    peak_memory_bytes_reason: str | None
    joules_per_token: Joules | None  # that is decoded
    joules_per_token_reason: str | None


class PrunedFolder(Record, frozen=True, kw_only=True):
    """The smaller checkpoint, and which programs read it."""

    path: str
    digest: str
    family: str
    read_by: tuple[str, ...]


class FixedSetting(Record, frozen=True, kw_only=True):
    """The answer of `prune --fix-setting`: a checkpoint that is what another is at a setting of its dial."""

    checkpoint: CheckpointName
    out: PrunedFolder
    setting: Setting
    weight_bytes: int
    wall_seconds: float


class PruneTarget(Record, frozen=True, kw_only=True):
    """What was asked for, and what the parts allowed."""

    kind: TargetKind
    asked: float  # a share, parameters, bytes, times the original's speed, or a share of the original's loss
    reached: float


class SearchStep(Record, frozen=True, kw_only=True):
    """A share that was tried in search of one that keeps the target."""

    keep: float
    loss_increase: Interval  # on the calibration text's scored windows: nats per token, window by window
    speed: float | None  # tokens written per second over the original's; null where it is the loss that is limited


class KeptParts(Record, frozen=True, kw_only=True):
    """What stays on; null for parts of which nothing was turned off."""

    experts: tuple[tuple[int, ...], ...] | None  # of each sparse layer, with those of multi-token prediction
    layers: tuple[int, ...]
    d_ff: (
        tuple[int, ...] | None
    )  # neurons of each layer, with multi-token prediction; of a sparse one, its shared experts'
    weights_share: float | None  # of the matrices in layers


class CalibrationText(Record, frozen=True, kw_only=True):
    """The text that the scores come from."""

    source: str
    digest: str
    tokens: int
    windows: int
    context_tokens: int


class TakenFile(Record, frozen=True, kw_only=True):
    """A file of the calibration text that was left out of it to be scored, since no second text was named."""

    divergence_bits: float  # Jensen–Shannon, of its token frequencies from the other files': 0 is alike
    median_divergence_bits: float  # of the files that could have been taken
    bytes_share: float  # of the text
    files: int  # of the text, with this one


class SecondDomain(Record, frozen=True, kw_only=True):
    """A text that takes no part in the scores."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = ("taken",)

    source: str
    digest: str
    tokens: int
    taken: TakenFile | None = None  # null where it was named


class Recovery(Record, frozen=True, kw_only=True):
    """What stays on was trained after the cut: what that took, and what it won back."""

    tokens: int
    kind: RecoveryKind  # of the text, or of the original's distribution over the next token
    flops: int
    seconds: float  # in training steps
    joules: Joules
    learning_rate: float  # the highest one
    repeats: float  # how many times the train split of the calibration text was read
    loss_after_cut: dict[str, DomainLoss]  # by text, before the first step
    won_back: dict[str, Interval]  # of that loss, by text: nats per token, window by window


class EqualCost(Record, frozen=True, kw_only=True):
    """Three ways to a model of as many active parameters, by the loss on a study's validation text, nats per token."""

    active_parameters: int  # of the pruned checkpoint
    pruned: Interval  # over windows, as the next
    lower_k: Interval | None  # the original at a lower k
    lower_k_reason: str | None
    lower_k_setting: str | None  # null with its loss
    trained_sparser: Interval  # one run, by the study's law: its uncertainty and the scatter of runs
    trained_shape: Shape
    tokens: int  # that the original was trained on, and the sparser model would be
    winner: Literal["pruned", "lower_k", "trained_sparser", "undecided"]  # whose interval lies below all others
    basis: str


class Pruned(Record, frozen=True, kw_only=True):
    """`prune.json`: a checkpoint with parts turned off, and what that did."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = ("equal_cost",)

    checkpoint: CheckpointName
    out: PrunedFolder
    part: Literal["experts", "layers", "neurons", "weights"]  # that is turned off
    method: str
    budget: str  # "uniform": the same share of each layer, "global": layers compete
    sequential: bool  # whether each layer's scores come from a model whose earlier layers are cut already
    pattern: str | None  # of weights, as "2:4": of each four neighbouring inputs two are off
    target: PruneTarget
    keep: float  # share that stays of all that could have been turned off
    kept: KeptParts
    scores: str  # the file of the scores of all that could have been turned off
    unscored_experts: tuple[tuple[int, int], ...]  # layer and expert that no calibration token reached
    calibration: CalibrationText
    second_domain: SecondDomain | None
    second_domain_reason: str | None
    before: CheckpointCosts
    after: CheckpointCosts  # of the cut and of the recovery, where there is one
    control: CheckpointCosts | None  # as much, drawn at random, a bare cut; the mean loss of several draws
    control_draws: int
    control_reason: str | None
    loss_increase: dict[str, Interval]  # by text: nats per token, window by window
    search: tuple[SearchStep, ...] | None  # the shares that were tried, in their order; null where none had to be
    recovery: Recovery | None  # null where nothing is trained after the cut
    warnings: tuple[str, ...]
    wall_seconds: float
    peak_process_bytes: int
    equal_cost: EqualCost | None = None  # null where no study was named
