"""The answers of `prune --split-experts` and `--join-experts`, and what a split folder keeps of the dense one."""

from __future__ import annotations

from typing import Literal

from sparsedial.records.evaluation import CheckpointName
from sparsedial.records.prune import CalibrationText, CheckpointCosts, KeptParts, PrunedFolder, Recovery, SecondDomain
from sparsedial.records.quantities import Interval
from sparsedial.records.record import Record
from sparsedial.records.setting import Setting

SPLIT_FILE = "split.json"  # in the folder of a split checkpoint


class SplitOrigin(Record, frozen=True, kw_only=True):
    """`split.json`: what makes a split checkpoint the dense one again."""

    original: CheckpointName
    config: str  # its config.json, letter by letter
    neurons: tuple[tuple[int, ...], ...]  # by layer, where each neuron lay: the shared ones, then expert after expert
    weights_digest: str


class SplitTarget(Record, frozen=True, kw_only=True):
    """The number of experts that was asked for, and the one of each layer."""

    kind: Literal["split_experts"]
    asked: int
    reached: int


class SplitPoint(Record, frozen=True, kw_only=True):
    """One number of experts per token, with what it costs."""

    setting: Setting
    neurons_share: float  # that a token visits, shared ones included
    costs: CheckpointCosts
    loss_increase: dict[str, Interval]  # by text: nats per token over the dense checkpoint, window by window
    at_random: dict[str, Interval] | None  # the same where the neurons were divided by chance, a bare division
    at_random_reason: str | None
    removed: dict[str, Interval] | None  # where as many neurons of each layer are all that stays, by `activation`
    removed_reason: str | None


class SplitExperts(Record, frozen=True, kw_only=True):
    """`prune.json` of a split checkpoint: a dense one whose neurons became experts, and what each setting costs."""

    checkpoint: CheckpointName
    out: PrunedFolder
    method: str
    sequential: bool
    target: SplitTarget
    always: int  # width of the shared part, in experts
    top_k: int  # experts that a token visits unless a setting says otherwise
    d_expert: tuple[int, ...]  # neurons of an expert, by layer
    kept: KeptParts  # nothing is turned off
    scores: str  # the file of what the calibration showed of each neuron, and of its expert
    unscored_experts: tuple[tuple[int, int], ...]  # none: each neuron has a score
    calibration: CalibrationText
    second_domain: SecondDomain | None
    second_domain_reason: str | None
    before: CheckpointCosts
    after: CheckpointCosts  # as it is written, with `top_k` experts
    control: CheckpointCosts | None  # the same where the neurons were divided by chance, without a recovery
    control_draws: int
    control_reason: str | None
    dial: tuple[SplitPoint, ...]  # all experts first
    search: None  # nothing is searched for
    recovery: Recovery | None  # null where nothing is trained afterwards; else at `top_k` experts
    warnings: tuple[str, ...]
    wall_seconds: float
    peak_process_bytes: int


class JoinedExperts(Record, frozen=True, kw_only=True):
    """The answer of `prune --join-experts`: the dense checkpoint of a split one."""

    checkpoint: CheckpointName
    out: PrunedFolder
    original: CheckpointName  # that was split
    same_weights: bool  # bit for bit; a split checkpoint may have been trained since
    weight_bytes: int
    wall_seconds: float
