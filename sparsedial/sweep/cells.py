"""Results of cells: one result per cell from the runs of all its seeds, and the table that laws are fitted to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparsedial.records.grid import Cell
from sparsedial.records.run import Run
from sparsedial.records.study import CellCounts
from sparsedial.shape.counts import active_parameters, total_parameters
from sparsedial.sweep.layout import Layout


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """The result of a cell: a representative run, and the means over its seeds."""

    run: Run  # the first seed's, or the one that diverged
    loss: float | None  # on validation text, nats per token; None where it diverged
    bits_per_byte: float | None
    seed_losses: tuple[float | None, ...]

    @property
    def bounded_loss(self) -> float:
        """The loss; infinite where the cell diverged."""
        return math.inf if self.loss is None else self.loss


Cells = Mapping[Cell, CellResult]


def merged(runs: Sequence[Run]) -> CellResult:
    """A cell's result from the runs of its seeds: means over the finished ones, if more than half finished."""
    finished = sorted((run for run in runs if run.finished), key=lambda run: run.recipe.seed)
    if len(finished) <= len(runs) / 2:
        broken = next(run for run in runs if not run.finished)
        return CellResult(run=broken, loss=None, bits_per_byte=None, seed_losses=(None,))
    losses = [run.validation_loss for run in finished if run.validation_loss is not None]
    bits = [run.validation_bits_per_byte for run in finished if run.validation_bits_per_byte is not None]
    return CellResult(
        run=finished[0],
        loss=float(np.mean(losses)),
        bits_per_byte=float(np.mean(bits)),
        seed_losses=tuple(losses),
    )


def line_losses(cells: Cells, experts: int, budget_flops: float) -> dict[int, float]:
    """Validation loss by width, for one sparsity at one budget; the loss of a diverged cell is infinite."""
    return {
        cell.d_model: result.bounded_loss
        for cell, result in cells.items()
        if (cell.experts, cell.budget_flops) == (experts, budget_flops)
    }


def counted(planned: int, cells: Cells) -> CellCounts:
    """The number of planned cells, and of cells that ended, including those that followed an open side."""
    finished = sum(result.loss is not None for result in cells.values())
    return CellCounts(planned=planned, finished=finished, diverged=len(cells) - finished)


def law_rows(layout: Layout, cells: Cells) -> dict[str, np.ndarray]:
    """The finished cells as the columns that laws are fitted to."""
    rows = [(cell, layout.shape(cell), result) for cell, result in cells.items() if result.loss is not None]
    columns: dict[str, list[float]] = {
        "loss": [result.bounded_loss for _, _, result in rows],
        "total_parameters": [total_parameters(shape) for _, shape, _ in rows],
        "active_parameters": [active_parameters(shape) for _, shape, _ in rows],
        "tokens": [result.run.tokens for _, _, result in rows],
        "sparsity": [shape.sparsity for _, shape, _ in rows],
        "experts": [shape.experts_per_choice for _, shape, _ in rows],
        "flops": [cell.budget_flops for cell, _, _ in rows],
        "d_model": [cell.d_model for cell, _, _ in rows],
    }
    return {name: np.array(values, dtype=float) for name, values in columns.items()}
