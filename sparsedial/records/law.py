"""`law.json`: a form with its coefficients, their intervals, and its held-out check."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from sparsedial.records.optimum import Allocation, Predicted
from sparsedial.records.quantities import Span
from sparsedial.records.record import Record

LAW_FILE = "law.json"
Counting = Literal[
    "with-embeddings", "without-embeddings", "both-embeddings"
]  # tied tables count once, not at all, twice


class HeldOut(Record, frozen=True, kw_only=True):
    """How well a law predicted runs that it was not fitted to."""

    runs: int
    budgets_flops: tuple[float, ...]
    rmse_log_loss: float
    median_relative_error: float
    max_relative_error: float
    baselines: dict[str, float]  # median relative errors of simple guesses
    law_on_the_same: float | None  # the law's error on the same runs as the simple guesses; null without any
    regret_of_predicted_best: float  # nats by which the run predicted to be best is above the best run


class FormTrial(Record, frozen=True, kw_only=True):
    """The error of a form in a comparison, or why it was refused."""

    rms_log_error: float | None
    refused: str | None


class Comparison(Record, frozen=True, kw_only=True):
    """Forms compared on runs that they were not fitted to."""

    rule: str  # which runs were held out
    forms: dict[str, FormTrial]
    taken: str | None = None  # why this form was chosen; null where none was compared


class Outlier(Record, frozen=True, kw_only=True):
    """A run far from the law that was fitted to it."""

    row: int  # its place in the table, whose first run is 1
    loss: float
    predicted_loss: float
    spreads: float  # its distance in robust spreads of the runs; below 0 where the run is better than the law


class Misfit(Record, frozen=True, kw_only=True):
    """What the form leaves unexplained: the runs' residuals follow a variable."""

    variable: str
    share: float  # of the residuals' variance that a smooth curve in it explains
    p_value: float  # how often chance alone does that


class Prior(Record, frozen=True, kw_only=True):
    """What is expected of an exponent before the runs are seen."""

    value: float
    log_spread: float  # standard deviation of its logarithm


class LawFile(Record, frozen=True, kw_only=True):
    """Loss as a function of size, tokens and sparsity."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = ("open_coefficients", "outliers", "misfit", "priors", "counting")

    form: str
    coefficients: dict[str, float]
    intervals: dict[str, Span]
    confidence: float
    samples: tuple[tuple[float, ...], ...]  # coefficients of each bootstrap sample, in the form's order
    runs: int
    rmse_log_loss: float
    fitted_range: dict[str, Span]
    undetermined: tuple[str, ...]
    seed: int
    # Those that the design cannot tell, each with the ones that can take its place; none where it has no effect.
    open_coefficients: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict[str, tuple[str, ...]])
    outliers: tuple[Outlier, ...] = ()  # farthest first
    misfit: Misfit | None = None  # null: no structure was found in the residuals
    priors: dict[str, Prior] = msgspec.field(default_factory=dict[str, Prior])  # those that the fit counted
    held_out: HeldOut | None = None
    held_out_reason: str | None = None
    refused: str | None = None  # null: where a fit refuses there is no law
    source: str = "ours"
    compared: Comparison | None = None  # null where a single form was asked for
    counting: Counting | None = None  # of its sizes; null: as the form's paper counts


class FormWords(Record, frozen=True, kw_only=True):
    """A form that a law may have."""

    says: str
    source: str


class Forms(Record, frozen=True, kw_only=True):
    """The answer of `fit --list-forms`."""

    forms: dict[str, FormWords]


class Fit(Record, frozen=True, kw_only=True):
    """The answer of `fit`: a law without its samples, or the reason why there is none, under `refused`."""

    form: str | None
    coefficients: dict[str, float]
    intervals: dict[str, Span | None]
    intervals_reason: str | None
    confidence: float | None
    runs: int
    independent_runs: int
    rmse_log_loss: float | None
    held_out: HeldOut | None
    held_out_reason: str | None
    undetermined: tuple[str, ...] | None  # null with the intervals
    open_coefficients: dict[str, tuple[str, ...]]  # those that the design cannot tell, each with its partners
    outliers: tuple[Outlier, ...]  # farthest first
    misfit: Misfit | None  # null: no structure was found in the residuals
    priors: dict[str, Prior]  # those that the fit counted
    allocations: tuple[Allocation, ...] | None  # the best size and tokens, at each sparsity of the table
    allocations_reason: str | None
    predicted: Predicted | None  # null where no table was to be predicted
    refused: str | None
    compared: Comparison | None  # null where a single form was asked for
    dropped_rows: int  # rows of the table that lack a number which the form needs
    dropped_reason: str | None  # null where none was dropped
    cells: int  # of one size, tokens and sparsity
    notes: tuple[str, ...]  # what a reader must know of the table and of the check
    out: str | None = None  # the file of the law; null where none was written
