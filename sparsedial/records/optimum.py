"""What a fitted law says of the best size and tokens for a budget, and what iso-FLOP parabolas say beside it."""

from __future__ import annotations

from sparsedial.records.quantities import Span
from sparsedial.records.record import Record


class Estimate(Record, frozen=True, kw_only=True):
    """A value with its interval; an end is null where the law has no samples, or they leave that end open."""

    value: float
    low: float | None
    high: float | None


class BestAt(Record, frozen=True, kw_only=True):
    """The best size and tokens for a budget."""

    flops: float
    size: Estimate
    tokens: Estimate
    loss: Estimate
    beyond: dict[str, float]  # how many times beyond the law's range the budget, the size and the tokens are


class Minimum(Record, frozen=True, kw_only=True):
    """The lowest point of the parabola through the runs of one budget."""

    flops: float
    size: float
    tokens: float
    runs: int


class Parabolas(Record, frozen=True, kw_only=True):
    """The iso-FLOP method: a parabola of loss in log size for each budget, and a power law through the minima."""

    size_exponent: Estimate
    tokens_exponent: Estimate
    minima: tuple[Minimum, ...]
    budgets_left_out: int  # without three sizes, or without a minimum between the smallest and the largest
    size_exponent_on_law: float | None  # of the law's own losses of these runs; null where they have no such minima
    bias: str


class Allocation(Record, frozen=True, kw_only=True):
    """How a law splits a budget between size and tokens, at one value of its other variables."""

    held: dict[str, float]  # the law's other variables, such as sparsity
    size: str  # which size: total_parameters or active_parameters
    flops_factor: float  # FLOPs are this factor times size times tokens
    flops_factors: Span  # the lowest and highest factor of the runs
    budgets_flops: Span  # the smallest and largest budget of the runs, between which the exponents hold
    size_exponent: Estimate | None  # null, like the next, where the law has no best size
    tokens_exponent: Estimate | None
    at: tuple[BestAt, ...] | None
    at_reason: str | None
    parabolas: Parabolas | None
    parabolas_reason: str | None


class Predicted(Record, frozen=True, kw_only=True):
    """Predictions of the rows of a table, written to a file."""

    table: str
    out: str
    rows: int
    rows_beyond: int  # with a variable outside the range of the law's runs
    form: str
    source: str  # of the law
    intervals_reason: str | None  # why the predictions have none
    median_relative_error: float | None  # null where the table has no losses
    max_relative_error: float | None
    notes: tuple[str, ...]  # what a reader must know of the table
