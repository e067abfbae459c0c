"""`plan.json`: the best shape and tokens for a budget, with the error, the dense rival and the limits."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from sparsedial.records.quantities import Currency, Family, Interval, Machine, Span, Sparsity
from sparsedial.records.recipe import Recipe
from sparsedial.records.record import Record, parse
from sparsedial.records.text import TokenizerWords
from sparsedial.records.verdict import Basis
from sparsedial.shape.shape import Shape
from sparsedial.store import Fault, try_edited_json

PLAN_FILE = "plan.json"
Winner = Family | Literal["undecided"]
TOKENIZER_FOLDER = "text/tokenizer"  # in the folder of a study, beside its plan


class PlanBudget(Record, frozen=True, kw_only=True):
    """The amount to spend, or the loss to reach."""

    currency: Currency
    value: float | None  # null where a loss is to be reached
    target_loss: float | None  # null where a budget was given


class PredictedLoss(Record, frozen=True, kw_only=True):
    """A predicted loss with its interval, nats per token; null, with a reason, where none is known."""

    mean: float
    low: float | None
    high: float | None
    interval_basis: Literal["bootstrap", "published_residual", "laws_spread"] | None
    interval_reason: str | None


class MemoryParts(Record, frozen=True, kw_only=True):
    """The peak memory of a training step, part by part."""

    weights_bytes: float
    moments_bytes: float
    casts_bytes: float
    gradients_bytes: float
    activations_bytes: float


class TrainingCosts(Record, frozen=True, kw_only=True):
    """The costs of a training run; null, with a reason, where unknown. Each low and high is of the seconds' range."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = (
        "joules_low",
        "joules_high",
        "joules_basis",
        "dollars_low",
        "dollars_high",
    )

    flops: float
    memory_bytes: float  # to train
    memory_parts: MemoryParts
    memory_source: str
    serving_memory_bytes: float
    seconds: float | None
    seconds_low: float | None
    seconds_high: float | None
    joules: float | None
    dollars: float | None
    seconds_reason: str | None
    joules_reason: str | None
    dollars_reason: str | None
    joules_low: float | None = None
    joules_high: float | None = None
    joules_basis: Basis | None = None  # measured: seconds times metered watts; estimated: times stated ones
    dollars_low: float | None = None
    dollars_high: float | None = None


class PlanMachine(Record, frozen=True, kw_only=True):
    """The machine of a plan's seconds: a named device with its maker's figures, or a measured profile.

    The fields of the other kind are null.
    """

    name: str
    devices: int
    watts: float
    dollars_per_hour: float | None  # null without a price
    peak_flops_per_second: float | None = None
    memory_bytes: float | None = None
    utilisation_dense: tuple[float, float, float] | None = None
    utilisation_sparse: tuple[float, float, float] | None = None
    source: str | None = None
    machine: Machine | None = None  # of a profile
    median_relative_error: float | None = None  # of a profile


class Rival(Record, frozen=True, kw_only=True):
    """The best dense model for the same budget."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = ("costs",)

    shape: Shape
    tokens: int
    total_parameters: int
    cost: float  # in the budget's currency
    predicted_loss: PredictedLoss
    costs: TrainingCosts | None = None  # null in files of earlier versions


class Crossover(Record, frozen=True, kw_only=True):
    """The budget from which sparse is predicted to beat dense."""

    currency: Currency
    value: float
    low: float | None
    high: float | None
    interval_reason: str | None  # why low or high is null
    searched: str
    within_fitted_range: bool | None
    within_fitted_range_reason: str | None


class Race(Record, frozen=True, kw_only=True):
    """The lowest dense and the lowest sparse loss over rising budgets, and where they cross."""

    currency: Currency
    budgets: tuple[float, ...]
    dense_loss: tuple[float, ...]
    sparse_loss: tuple[float, ...]
    crossover: Crossover | None
    crossover_reason: str | None


class SampledOptimum(Record, frozen=True, kw_only=True):
    """Where the best shape lies by the samples of the law, at its confidence."""

    confidence: float
    sparsity: Span
    total_parameters: Span
    active_parameters: Span
    tokens: Span


class NearOptimal(Record, frozen=True, kw_only=True):
    """The ranges of shapes predicted to be within 0.5 % of the best loss; null, with a reason, without a law."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = ("sampled",)
    sparsity: Span | None
    sparsity_reason: str | None = None  # of the other three as well
    total_parameters: Span | None = None
    active_parameters: Span | None = None
    tokens: Span | None = None
    sampled: SampledOptimum | None = None  # null for a law without samples, or a loss to reach


class OtherAnswer(Record, frozen=True, kw_only=True):
    """The answer of another law: a shape, or the leverage of this shape; the other half is null."""

    sparsity: float | None = None
    experts: int | None = None
    top_k: int | None = None
    total_parameters: int | None = None
    active_parameters: int | None = None
    tokens: int | None = None
    loss: float | None = None
    leverage_of_this_shape: float | None = None
    at_flops: float | None = None
    budget_share: float | None = None  # that its training takes; less than 1 for a law of one number of tokens
    extrapolation: dict[str, float] | None = None  # as in a plan


class OtherLaw(Record, frozen=True, kw_only=True):
    """The answer of another published law to the same question."""

    law: str
    held_fixed: str
    answer: OtherAnswer | None
    answer_reason: str | None


class Export(Record, frozen=True, kw_only=True):
    """A plan written for another trainer."""

    trainer: str
    file: str
    command: str
    written_for: str
    not_expressed: tuple[str, ...]


class PlanOrigin(Record, frozen=True, kw_only=True):
    """What the law of a study's plan was measured with. A run that differs in it is not the run that was predicted."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = ("token_share",)

    tokenizer: TokenizerWords
    tokenizer_folder: str  # that holds it; relative to the plan's folder, or absolute
    text_digest: str
    context: int
    law_digest: str
    profile_digest: str | None  # null where the machine is not a profile
    token_share: float | None = None  # of each step's tokens that the loss counted; null where all did


class Plan(Record, frozen=True, kw_only=True):
    """The answer to a budget."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = (
        *("marks", "extrapolation", "gap_to_dense", "gap_to_dense_reason", "winner"),
        *("origin", "origin_reason", "cost", "best_sparsity_reason", "out"),
    )

    budget: PlanBudget
    law: str
    law_source: str
    shape: Shape
    tokens: int
    total_parameters: int
    active_parameters: int
    sparsity: Sparsity
    predicted_loss: PredictedLoss
    costs: TrainingCosts
    machine: PlanMachine | None  # null where none was named
    dense_rival: Rival | None
    dense_rival_reason: str | None
    crossover: Crossover | None
    crossover_reason: str | None
    binding_constraints: tuple[str, ...]
    near_optimal: NearOptimal
    tokens_per_total_parameter: float
    other_laws: tuple[OtherLaw, ...]
    warnings: tuple[str, ...]
    candidates: int
    recipe: Recipe
    recipe_source: str
    exported: tuple[Export, ...] = ()
    marks: tuple[str, ...] = ()  # what a reader must know first: limits of the law, extrapolation, odd shapes
    extrapolation: dict[str, float] = msgspec.field(
        default_factory=dict[str, float]
    )  # by quantity: the factor beyond the runs
    gap_to_dense: Interval | None = None  # the best dense loss minus the best sparse one
    gap_to_dense_reason: str | None = None
    winner: Winner | None = None  # null without a gap
    origin: PlanOrigin | None = None
    origin_reason: str | None = "the law is not a study's, so it names no text and no tokenizer"
    cost: float | None = None  # in the budget's currency, as the dense rival's; null in files of earlier versions
    best_sparsity_reason: str | None = None  # why it is not known which sparsity is best; null where it is
    out: str | None = None  # the file that the plan was written to as well; null in that file


class Position(Record, frozen=True, kw_only=True):
    """The best shape at one sparsity, for a budget."""

    sparsity: float
    shape: Shape
    tokens: int
    total_parameters: int
    active_parameters: int
    predicted_loss: PredictedLoss
    costs: TrainingCosts
    binding_constraints: tuple[str, ...]
    warnings: tuple[str, ...]
    marks: tuple[str, ...]  # as in a plan


class Positions(Record, frozen=True, kw_only=True):
    """Every sparsity with its best shape, densest first; `best` and `dense` count positions from 0."""

    budget: PlanBudget
    positions: tuple[Position, ...]
    best: int
    dense: int | None  # null where no dense shape fits
    gap_to_dense: Interval | None  # as in a plan
    gap_to_dense_reason: str | None
    winner: Winner | None  # null without a gap
    machine: PlanMachine | None  # null where none was named
    near_optimal: NearOptimal
    no_choice_reason: str | None  # why the law cannot say which sparsity is best; null where it can


def read_plan(path: Path) -> tuple[Plan, bool]:
    """The plan in a file, and whether it was edited by hand, which a plan may be.

    Raises: UserError as `read`, except for an edited file.
    """
    found = try_edited_json(path)
    if isinstance(found, Fault):
        raise found.error()
    values, edited = found
    return parse({key: value for key, value in values.items() if key != "schema_version"}, Plan, str(path)), edited
