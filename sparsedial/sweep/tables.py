"""The tables of a study's record, which the report shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sparsedial.law.law import Law
from sparsedial.records.grid import Cell, CellRow, LawCurve, RateModel, RunRow, VerdictRow
from sparsedial.records.quantities import Family
from sparsedial.records.run import Run
from sparsedial.shape.counts import active_parameters
from sparsedial.shape.ladder import RUNGS
from sparsedial.sweep.cells import CellResult, Cells
from sparsedial.sweep.judge import Judged
from sparsedial.sweep.lab import Archive
from sparsedial.sweep.laws import predicted_cell
from sparsedial.sweep.layout import Layout
from sparsedial.sweep.verdict import Pair

CURVE_POINTS = 120
LAW_POINTS = 25  # of a law's curve, which bends between the sizes that were trained


def cells_table(layout: Layout, cells: Cells, rates: RateModel, below: Law | None) -> tuple[CellRow, ...]:
    """A row for every cell; cells of the largest budget also hold the prediction by the law of the lower budgets."""
    return tuple(_cell_row(layout, cell, result, rates, below) for cell, result in cells.items())


def _cell_row(layout: Layout, cell: Cell, result: CellResult, rates: RateModel, below: Law | None) -> CellRow:
    run = result.run
    held_out = cell.budget_flops == layout.budgets[-1]
    predicted = predicted_cell(layout, below, cell) if held_out and below is not None else None
    optimum = rates.at(run.shape, run.tokens)
    return CellRow(
        **RunRow.of(run, result.loss, result.bits_per_byte),
        budget_flops=cell.budget_flops,
        seed_losses=result.seed_losses,
        learning_rate_optimum_distance=math.log2(run.recipe.learning_rate / optimum),
        held_out=held_out,
        predicted_loss=predicted and predicted.loss,
        predicted_low=predicted and predicted.low,
        predicted_high=predicted and predicted.high,
    )


def verdict_rows(archive: Archive, judged: Judged) -> tuple[VerdictRow, ...]:
    """A row for every run of a verdict, with its training curve; equal seconds first, dense before sparse."""
    pairs: list[tuple[str, Pair | None]] = [("seconds", judged.seconds), ("flops", judged.flops)]
    families: tuple[Family, Family] = ("dense", "sparse")
    return tuple(
        VerdictRow(
            **RunRow.of(run, run.validation_loss, run.validation_bits_per_byte),
            currency="seconds" if currency == "seconds" else "flops",
            family=family,
            test_loss=run.test_loss,
            curve=training_curve(archive, run),
        )
        for currency, pair in pairs
        if pair is not None
        for family in families
        for run in pair.of(family)
    )


def training_curve(archive: Archive, run: Run) -> tuple[tuple[float, float], ...]:
    """Tokens and training loss, averaged into at most `CURVE_POINTS` points."""
    lines = [(line.index + 1, line.loss) for line in archive.metrics(run.hash) if line.loss is not None]
    chunks = np.array_split(np.array(lines), min(CURVE_POINTS, len(lines)))
    tokens = run.recipe.batch * run.recipe.context
    return tuple((float(chunk[-1, 0] * tokens), float(chunk[:, 1].mean())) for chunk in chunks)


def law_curves(layout: Layout, cells: Cells, law: Law | None) -> tuple[LawCurve, ...]:
    """The law's loss along each line of equal budget and sparsity, over the range of trained sizes."""
    if law is None:
        return ()
    curves: list[LawCurve] = []
    for budget in layout.budgets:
        for experts in layout.experts:
            widths = [cell.d_model for cell in cells if (cell.experts, cell.budget_flops) == (experts, budget)]
            rungs = [rung for rung in RUNGS if min(widths, default=1) <= rung <= max(widths, default=0)]
            if rungs:
                curves.append(_curve(layout, law, budget, experts, rungs))
    return tuple(curves)


def _curve(layout: Layout, law: Law, budget: float, experts: int, rungs: Sequence[int]) -> LawCurve:
    shapes = [layout.ladder.shape(rung, experts) for rung in rungs]
    points = [law.variables(shape, layout.steps_for(shape, budget) * layout.tokens_per_step) for shape in shapes]
    sizes = np.array([active_parameters(shape) for shape in shapes], dtype=float)
    ends = math.log(sizes[0]), math.log(sizes[-1])
    between = np.exp(np.linspace(*ends, LAW_POINTS)) if len(sizes) > 1 else sizes
    columns = {name: _between(sizes, [point[name] for point in points], between) for name in points[0]}
    low, high = law.interval(**columns)
    return LawCurve(
        budget_flops=budget,
        experts=experts,
        active_parameters=tuple(np.rint(between).astype(int).tolist()),
        loss=tuple(law.loss(**columns).tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
    )


def _between(sizes: np.ndarray, values: Sequence[float], wanted: np.ndarray) -> np.ndarray:
    """A variable of a law at sizes between those where it is known; straight lines where both axes are logarithmic."""
    known = np.array(values, dtype=float)
    if not (known > 0).all():
        return np.interp(np.log(wanted), np.log(sizes), known)
    return np.exp(np.interp(np.log(wanted), np.log(sizes), np.log(known)))
