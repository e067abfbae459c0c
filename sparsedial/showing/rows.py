"""The cells of a study by budget and sparsity, for pictures and sentences."""

from __future__ import annotations

from sparsedial.law.bracket import End
from sparsedial.law.bracket import open_side as open_side_of
from sparsedial.records.grid import CellRow
from sparsedial.records.study import Study


def finished(study: Study) -> list[CellRow]:
    """The cells that have a loss."""
    return [row for row in study.cells_table if row.status == "finished" and row.loss is not None]


def budgets(study: Study) -> list[float]:
    """The budgets that have a finished cell, lowest first."""
    return sorted({row.budget_flops for row in finished(study)})


def experts_tried(study: Study) -> list[int]:
    """The numbers of experts of the study, dense (0) first."""
    return sorted({row.experts for row in study.cells_table})


def line_of(study: Study, budget: float, experts: int) -> list[CellRow]:
    """The finished cells of one sparsity at one budget, smallest active size first."""
    rows = [row for row in finished(study) if (row.budget_flops, row.experts) == (budget, experts)]
    return sorted(rows, key=lambda row: row.active_parameters)


def best_of(study: Study, budget: float, experts: int) -> CellRow | None:
    """The best cell of one sparsity at one budget."""
    return min(line_of(study, budget, experts), key=lambda row: row.bounded_loss, default=None)


def open_side(study: Study, budget: float, experts: int) -> End | None:
    """The side on which the best cell is the last one tried; diverged cells count as infinitely bad."""
    rows = [row for row in study.cells_table if (row.budget_flops, row.experts) == (budget, experts)]
    rows.sort(key=lambda row: row.active_parameters)
    return open_side_of({row.active_parameters: row.bounded_loss for row in rows})


def best_cell(study: Study, budget: float) -> CellRow:
    """The best cell of one budget."""
    return min((row for row in finished(study) if row.budget_flops == budget), key=lambda row: row.bounded_loss)


def advantages(study: Study) -> list[tuple[float, float]]:
    """For each budget, the best dense loss minus the best sparse loss, in nats per token."""
    pairs: list[tuple[float, float]] = []
    for budget in budgets(study):
        best = [row for experts in experts_tried(study) if (row := best_of(study, budget, experts)) is not None]
        dense = [row.bounded_loss for row in best if not row.experts]
        sparse = [row.bounded_loss for row in best if row.experts]
        if dense and sparse:
            pairs.append((budget, dense[0] - min(sparse)))
    return pairs


def near_optimal_experts(study: Study) -> list[int]:
    """The tried numbers of experts that are in the near-optimal band."""
    band = study.near_optimal.sparsity
    if band is None:
        return []
    sparsities = {row.experts: row.sparsity for row in study.cells_table}
    return [experts for experts, value in sorted(sparsities.items()) if band[0] - 1e-6 <= value <= band[1] + 1e-6]
