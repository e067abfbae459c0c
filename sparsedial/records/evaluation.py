"""The answers of `evaluate`: a checkpoint's loss on a text and its scores on tasks."""

from __future__ import annotations

from typing import Literal

from sparsedial.records.domains import DomainLoss
from sparsedial.records.quantities import Interval, Load, Machine
from sparsedial.records.record import Record
from sparsedial.records.setting import Setting
from sparsedial.records.text import SkippedLines


class Joules(Record, frozen=True, kw_only=True):
    """Energy with its source."""

    joules: float
    low: float | None  # of a timing's range, as its p10 and p90; null for a single measurement
    high: float | None
    basis: Literal["measured", "estimated"]  # estimated: seconds times stated watts
    source: str


class TaskScore(Record, frozen=True, kw_only=True):
    """The scores of one task. Intervals are 95 %, over items, or over documents where items share one."""

    version: float | str  # of lm-eval's file
    licence: str | None  # of its data; null where nothing states one
    source: str | None  # of its data; null where nothing states one
    data_digest: str | None  # of its local files; null for data of the Hub
    shots: int  # solved examples before each item
    items: int
    items_truncated: int  # whose beginning was cut because they exceed the model's context
    items_left_out: int  # whose passage does not fit the model's context; they are not scored
    metrics: dict[str, Interval]
    primary: str  # the metric that stands for the task
    chance: float | None  # what guessing scores; null where answers are written freely
    at_chance: bool | None  # whether guessing scores as well more often than in 5 % of cases
    p_value: float | None
    answer_bits_per_byte: Interval | None  # of the right answer; null where there is none
    gold_rank: Interval | None  # of the right choice, 1 is the likeliest; null without choices
    margin_nats: Interval | None  # of the right choice over the best wrong one; null without choices
    items_per_second: float | None  # null where an earlier call gave some of the answers
    joules_per_item: Joules | None  # null where an earlier call gave some of the answers
    contaminated_items: int | None  # null where no text was given to look in
    metrics_without_contaminated: dict[str, Interval] | None


class Harness(Record, frozen=True, kw_only=True):
    """The program whose tasks, prompts and metrics were used."""

    name: str
    version: str


class CheckpointName(Record, frozen=True, kw_only=True):
    """Which checkpoint was evaluated."""

    path: str
    digest: str  # SHA-256 of its weights and configuration
    family: str


class Evaluation(Record, frozen=True, kw_only=True):
    """One checkpoint's loss on a text, and its scores on tasks; what was not asked for is null."""

    checkpoint: CheckpointName
    setting: Setting | None  # null: as it was trained
    loss: float | None  # nats per token
    bits_per_byte: float | None
    tokens: int | None
    bytes: int | None
    loss_interval: Interval | None  # 95 %
    bits_per_byte_interval: Interval | None
    interval_over: Literal["documents", "windows"] | None
    context_tokens: int | None
    stride_tokens: int | None  # by which windows move; each token is scored once
    domains: dict[str, DomainLoss] | None  # null also for a text without sub-folders
    expert_load: Load | None  # null for a dense model
    skipped: SkippedLines | None
    tasks: dict[str, TaskScore] | None
    harness: Harness | None
    machine: Machine
    wall_seconds: float


SURE = 0.05  # a difference that chance alone makes less often is called one
# Windows, documents or items below which none is: the signs of five are all alike by chance more often than that.
LEAST_UNITS = 6


class PairedDifference(Record, frozen=True, kw_only=True):
    """A difference of means over the same items, second minus first, with its 95 % interval and two-sided p-value."""

    mean: float
    low: float | None  # null for a single item or document
    high: float | None
    items: int
    p_value: float


class Paired(Record, frozen=True, kw_only=True):
    """Two checkpoints, or two settings of one, on one task; settings on the loss of the text too."""

    task: str
    metric: str
    first: str
    second: str
    difference: PairedDifference


class Evaluations(Record, frozen=True, kw_only=True):
    """Several checkpoints, or settings of one, and how they differ on the same items."""

    results: tuple[Evaluation, ...]
    paired: tuple[Paired, ...]
    comparisons: int  # so many differences were looked at: one in twenty is large by chance alone


class TaskSize(Record, frozen=True, kw_only=True):
    """How much a model reads and writes for a task."""

    items: int
    items_too_long: int  # for the model's context
    tokens: int  # that are read; what several items share is read once
    tokens_written: int  # at most


class EvaluateDryRun(Record, frozen=True, kw_only=True):
    """What an evaluation of the first checkpoint would cost."""

    tasks: dict[str, TaskSize]
    items: int
    tokens: int
    tokens_written: int
    seconds: float  # by a measurement of this model on this machine


class KeptAnswer(Record, frozen=True, kw_only=True):
    """One answer in `answers.jsonl`, from which a stopped command goes on."""

    asked: str  # the digest of the model, the ids that it was given and what was asked
    nats: float | None  # log-likelihood of a continuation; null where the answer was written
    greedy: bool | None  # whether each of its tokens is the likeliest; null where the answer was written
    text: str | None  # that was written; null where a continuation was scored


class Judged(Record, frozen=True, kw_only=True):
    """One item's answer, in `items.jsonl`."""

    checkpoint: str
    task: str
    id: int  # of the item in its split
    choices_nats: tuple[float, ...] | None  # of each choice; null where the answer is written
    gold: str | None  # null where the task states none
    chosen: int | None  # null without choices
    text: str | None  # that was written; null where choices were scored
    contaminated: float | None  # share of its 13-word runs that the text has; null without a text, or too few words
