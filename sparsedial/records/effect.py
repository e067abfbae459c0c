"""The effect of a selection: the loss of equal models on what stays, on a random part, and on the full text."""

from __future__ import annotations

from typing import Literal

from sparsedial.records.evaluation import PairedDifference
from sparsedial.records.probes import ProbeKind
from sparsedial.records.quantities import Interval
from sparsedial.records.record import Record
from sparsedial.shape.shape import Shape

EFFECT_PLAN_FILE = "effect.json"

Part = Literal["kept", "random", "full"]
Better = Literal["kept", "random", "full", "undecided"]
Direction = Literal["grows", "shrinks", "unresolved"]


class EffectInputs(Record, frozen=True, kw_only=True):
    """What a measurement is asked; the same values go on with a stopped one."""

    time: float | None  # seconds; null where budgets are stated
    budgets: tuple[float, ...]  # in training FLOPs; none where a time is stated
    seeds: int
    tokenizer: str
    device: str
    manifest_digest: str  # of the selection
    selection_flops: float  # of its score: a reference model's training, and its reading of the text
    probes: float | None = None  # share of each part's training tokens that are probes


class EffectBudget(Record, frozen=True, kw_only=True):
    """The equal models of one budget."""

    budget_flops: float
    shape: Shape
    steps: int
    steps_at_equal_total: int | None  # of models that pay for the score too; null where it costs nothing or too much
    learning_rate: float


class EffectPlan(Record, frozen=True, kw_only=True):
    """`effect.json`: what a measurement trains, fixed before its first run."""

    inputs: EffectInputs
    budgets: tuple[EffectBudget, ...]  # the smaller one first
    batch: int
    context: int
    predicted_seconds: float


class EffectPoint(Record, frozen=True, kw_only=True):
    """The models of one part at one budget. Intervals are 95 %, over seeds."""

    part: Part
    budget_flops: float
    flops: int  # of each run
    tokens: int  # that each run reads
    repeats: float  # how often it reads its part
    loss: Interval | None  # on test text, nats per token; null where every run diverged
    bits_per_byte: Interval | None  # on test text
    validation_loss: Interval | None
    domains: dict[str, Interval] | None  # loss on test text; null for a text without domains, or where all diverged
    probes: dict[ProbeKind, Interval] | None  # bits per byte of the right answers, the mean over the levels of a kind
    probes_reason: str | None
    runs: tuple[str, ...]  # hashes, in the order of the seeds
    diverged: int


class EqualTotal(Record, frozen=True, kw_only=True):
    """The same where the kept side also pays for its score, so that it trains on fewer tokens."""

    selection_flops: float
    budgets_flops: tuple[float, ...]  # those that leave enough to train on; what follows is by these
    points: tuple[EffectPoint, ...]  # of the kept part
    kept_minus_random: tuple[PairedDifference | None, ...]
    kept_minus_full: tuple[PairedDifference | None, ...]
    winner: Better
    sentence: str


class Effect(Record, frozen=True, kw_only=True):
    """What a selection did to the loss of equal models on untouched text, at equal training FLOPs."""

    budgets_flops: tuple[float, ...]
    seeds: int
    confidence: float
    points: tuple[EffectPoint, ...]
    kept_minus_random: tuple[PairedDifference | None, ...]  # test loss, by budget, by seed; null: under two pairs
    kept_minus_full: tuple[PairedDifference | None, ...]
    winner: Better  # at the larger budget
    direction_over_budgets: Direction  # of the lead of the kept part over the random one
    change_over_budgets: PairedDifference | None  # of that lead, larger minus smaller budget; null: under two pairs
    direction_against_full: Direction
    sentence: str
    direction_sentence: str
    repeats_sentence: str
    equal_total: EqualTotal | None
    equal_total_reason: str | None
    plan: EffectPlan
    random_digest: str  # of the manifest of the random part
    flops: float  # of all runs
    seconds: float  # of the last start, the preparation of the texts included
