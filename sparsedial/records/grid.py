"""The parts of `study.json` about the grid: its layout, learning rates, prediction, cells and runs."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from sparsedial.records.law import Comparison
from sparsedial.records.quantities import Family, Load
from sparsedial.records.recipe import OptimizerName
from sparsedial.records.record import Record
from sparsedial.records.run import Run
from sparsedial.shape.counts import active_parameters
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shape import Shape


class Cell(Record, frozen=True, kw_only=True):
    """One point of the grid: a width of the ladder, a number of experts, a budget."""

    d_model: int
    experts: int
    budget_flops: float


class PhaseSeconds(Record, frozen=True, kw_only=True):
    """Predicted seconds of each phase, on the study's workers."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = ("kept_shares",)

    learning_rates: float
    grid: float
    verdict: float
    kept_shares: float = 0.0  # 0 without a selection

    @property
    def total(self) -> float:
        """Seconds of all phases."""
        return self.learning_rates + self.grid + self.verdict + self.kept_shares


class LayoutFile(Record, frozen=True, kw_only=True):
    """The grid that a study fixes before its first cell."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = ("optimizers",)

    ladder: Ladder
    batch: int  # sequences per step, the same in all cells: a batch that grows with the budget would bend the law
    budgets: tuple[float, ...]  # FLOPs
    experts: tuple[int, ...]  # 0 is dense
    seeds: int  # of the verdict
    max_total_parameters: float | None  # null without a bound
    cell_seeds: int  # per cell at the two largest budgets; cheaper cells may have more
    optimizers: tuple[OptimizerName, ...] = ("adamw",)  # of the cells; others beside it that a rival may have
    cells: tuple[Cell, ...] = ()  # without the cells that follow open sides
    predicted_seconds: PhaseSeconds | None = None  # null while it is being laid


Point = tuple[float, float | None]  # a learning rate and its loss; null where the run diverged


class Scan(Record, frozen=True, kw_only=True):
    """Losses of one shape at several learning rates, and the optimum between them."""

    d_model: int
    experts: int
    active_parameters: int
    experts_per_choice: float  # experts/top_k; 1 for dense
    tokens: int
    points: tuple[Point, ...]
    optimum: float | None  # null where every run diverged
    interior: bool  # whether there are worse rates on both sides of the best one


class RateModel(Record, frozen=True, kw_only=True):
    """The best learning rate as a product of powers of active size, experts/top_k and tokens, at one batch size."""

    rate: float  # at the reference point
    reference: dict[str, float]
    exponents: dict[str, float]

    def at(self, shape: Shape, tokens: int) -> float:
        """The learning rate of a cell."""
        log_rate = math.log(self.rate) + sum(
            self.exponents[name] * (math.log(value) - math.log(self.reference[name]))
            for name, value in rate_variables(shape, tokens).items()
        )
        return round_rate(math.exp(log_rate))


def rate_variables(shape: Shape, tokens: int) -> dict[str, float]:
    """The variables that the model of the best learning rate uses."""
    return {
        "active_parameters": float(active_parameters(shape)),
        "experts_per_choice": shape.experts_per_choice,
        "tokens": float(tokens),
    }


def round_rate(rate: float) -> float:
    """A rate with three significant digits, so that it is written alike in every file."""
    return float(f"{rate:.3g}")


class LearningRates(Record, frozen=True, kw_only=True):
    """The scans of one optimizer and the model of their optima."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = ("optimizer",)

    optimizer: OptimizerName = "adamw"
    scans: tuple[Scan, ...]
    model: RateModel


class CellPrediction(Record, frozen=True, kw_only=True):
    """The loss of a cell, predicted before the cell was trained."""

    d_model: int
    experts: int
    loss: float
    low: float
    high: float


class Prediction(Record, frozen=True, kw_only=True):
    """The prediction of the largest budget by the law of the lower budgets."""

    form: str
    coefficients: dict[str, float]
    comparison: Comparison
    cells: tuple[CellPrediction, ...]


class RunRow(Record, frozen=True, kw_only=True):
    """A run in the tables of a study; `reason` says why it has no loss."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = ("optimizer",)

    hash: str
    d_model: int
    layers: int
    experts: int
    top_k: int
    sparsity: float
    active_parameters: int
    total_parameters: int
    tokens: int
    flops: int
    loss: float | None  # on validation text
    bits_per_byte: float | None
    seconds: float
    joules: float | None  # null where not metered: the run's own file says why
    alone: bool
    optimizer: OptimizerName = "adamw"
    learning_rate: float
    status: Literal["finished", "diverged"]
    reason: str | None
    expert_load: Load | None  # null of a dense model
    repeats: float
    seed: int

    @staticmethod
    def of(run: Run, loss: float | None, bits_per_byte: float | None) -> RunRow:
        """A run's row; its loss is given, since that of a cell is a mean."""
        return RunRow(
            hash=run.hash,
            d_model=run.shape.d_model,
            layers=run.shape.layers,
            experts=run.shape.experts,
            top_k=run.shape.top_k,
            sparsity=run.sparsity.experts,
            active_parameters=run.active_parameters,
            total_parameters=run.total_parameters,
            tokens=run.tokens,
            flops=run.flops,
            loss=loss,
            bits_per_byte=bits_per_byte,
            seconds=run.seconds,
            joules=run.joules,
            alone=run.alone,
            optimizer=run.recipe.optimizer,
            learning_rate=run.recipe.learning_rate,
            status=run.status,
            reason=run.reason,
            expert_load=run.expert_load,
            repeats=run.repeats,
            seed=run.recipe.seed,
        )

    @property
    def bounded_loss(self) -> float:
        """The loss; infinite where the run diverged."""
        return math.inf if self.loss is None else self.loss

    def cost(self, currency: str) -> float | None:
        """Its cost in FLOPs, seconds or joules; None where it is not known."""
        return {"flops": self.flops, "seconds": self.seconds, "joules": self.joules}[currency]


class CellRow(RunRow, frozen=True, kw_only=True):
    """A cell; its loss is the mean over its seeds. At the largest budget a loss was predicted, if there was a law."""

    budget_flops: float
    seed_losses: tuple[float | None, ...]  # null where one diverged
    learning_rate_optimum_distance: float  # log2 of its learning rate over the modelled optimum
    held_out: bool
    predicted_loss: float | None
    predicted_low: float | None
    predicted_high: float | None


class VerdictRow(RunRow, frozen=True, kw_only=True):
    """A run of a verdict with its training curve."""

    currency: Literal["flops", "seconds"]
    family: Family
    test_loss: float | None
    curve: tuple[tuple[float, float], ...]  # tokens and training loss


class LawCurve(Record, frozen=True, kw_only=True):
    """The law's loss along a line of equal budget and sparsity."""

    budget_flops: float
    experts: int
    active_parameters: tuple[int, ...]
    loss: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
