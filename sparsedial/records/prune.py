"""The answer of `prune`: what was turned off, and the four costs before, after, and for a random choice."""

from __future__ import annotations

from typing import Literal

from sparsedial.records.domains import DomainLoss
from sparsedial.records.evaluation import CheckpointName, Joules, TaskScore
from sparsedial.records.quantities import Interval, Sparsity
from sparsedial.records.record import Record
from sparsedial.records.setting import Setting

PRUNE_FILE, SCORES_FILE = "prune.json", "scores.parquet"


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
    tasks: dict[str, TaskScore] | None  # null where none were asked for
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

    kind: Literal["keep"]
    asked: float
    reached: float


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


class SecondDomain(Record, frozen=True, kw_only=True):
    """A text that takes no part in the scores."""

    source: str
    digest: str
    tokens: int


class Pruned(Record, frozen=True, kw_only=True):
    """`prune.json`: a checkpoint with parts turned off, and what that did."""

    checkpoint: CheckpointName
    out: PrunedFolder
    part: Literal["experts", "layers", "neurons", "weights"]  # that is turned off
    method: str
    budget: str  # "uniform": the same share of each layer, "global": layers compete
    sequential: bool  # whether each layer's scores come from a model whose earlier layers are cut already
    pattern: str | None  # of weights, as "2:4": of each four neighbouring inputs two are off
    target: PruneTarget
    kept: KeptParts
    scores: str  # the file of the scores of all that could have been turned off
    unscored_experts: tuple[tuple[int, int], ...]  # layer and expert that no calibration token reached
    calibration: CalibrationText
    second_domain: SecondDomain | None
    second_domain_reason: str | None
    before: CheckpointCosts
    after: CheckpointCosts
    control: CheckpointCosts | None  # as much, drawn at random; the mean loss of several draws
    control_draws: int
    control_reason: str | None
    loss_increase: dict[str, Interval]  # by text: nats per token, window by window
    search: None  # nothing is searched for yet
    recovery: None  # nothing is trained afterwards yet
    warnings: tuple[str, ...]
    wall_seconds: float
    peak_process_bytes: int
