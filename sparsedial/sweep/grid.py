"""The second phase: train the cells of the grid, and follow open sides while there is time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from sparsedial.records.grid import Cell, RateModel
from sparsedial.records.run import Run
from sparsedial.runs.executor import Task
from sparsedial.runs.policy import done
from sparsedial.sweep.budgets import grid_cost
from sparsedial.sweep.cells import CellResult, Cells, line_losses, merged
from sparsedial.sweep.lab import Lab, run_label
from sparsedial.sweep.layout import cell_seconds, next_cell


def train_grid(
    lab: Lab,
    rates: RateModel,
    budgets: Sequence[float],
    before: Cells,
    report: Callable[[Cells], None] = lambda cells: None,
) -> dict[Cell, CellResult]:
    """The results of these budgets' cells, after those in `before`, in the order in which they ended.

    A cell ends when all its seeds have ended. Open sides are followed while the verdict keeps its time. `report` is
    called with all results each time that a cell ends.
    """
    layout = lab.layout
    cells = dict(before)
    waiting: dict[tuple[int, float], int] = defaultdict(int)  # runs of a line that have not ended
    ended: dict[Cell, list[Run]] = defaultdict(list)
    cell_of: dict[str, Cell] = {}  # by hash of the job

    def follow(task: Task, run: Run) -> list[Task]:
        cell = cell_of[task.job.hash]
        ended[cell].append(run)
        if len(ended[cell]) == layout.repeats(cell.budget_flops):
            cells[cell] = merged(ended[cell])
            report(cells)
        line = cell.experts, cell.budget_flops
        waiting[line] -= 1
        after = next_cell(layout, *line, line_losses(cells, *line)) if waiting[line] == 0 else None
        if after is None or after in cells:
            return []
        wanted = cell_tasks(lab, rates, after)
        return planned(after, wanted) if _affordable(lab, after, wanted) else []

    def planned(cell: Cell, tasks: list[Task]) -> list[Task]:
        waiting[cell.experts, cell.budget_flops] += len(tasks)
        cell_of.update((task.job.hash, cell) for task in tasks)
        return tasks

    laid = [cell for cell in layout.cells if cell.budget_flops in budgets]
    laid.sort(key=lambda cell: -cell_seconds(layout, lab.profile, cell))
    lab.run([task for cell in laid for task in planned(cell, cell_tasks(lab, rates, cell))], follow)
    return cells


def cell_tasks(lab: Lab, rates: RateModel, cell: Cell) -> list[Task]:
    """A task for each seed of a cell."""
    layout = lab.layout
    shape, repeats = layout.shape(cell), layout.repeats(cell.budget_flops)
    rate = rates.at(shape, layout.tokens(cell))
    label = run_label(cell.d_model, cell.experts, f"{cell.budget_flops:.2g} FLOPs")
    return [
        Task(
            job=lab.job(shape, layout.steps(cell), layout.batch, rate, seed),
            label=label + (f", seed {seed}" if repeats > 1 else ""),
            evaluation_tokens=lab.evaluation_tokens,
            probes=lab.probe_tokens > 0,
        )
        for seed in lab.cell_seeds(repeats)
    ]


def _affordable(lab: Lab, cell: Cell, tasks: Sequence[Task]) -> bool:
    """Whether a cell leaves enough time for the verdict, or was trained by an earlier start of the study."""
    seconds = len(tasks) * grid_cost(lab.layout, lab.profile, cell, lab.probe_tokens).seconds
    if lab.clock.remaining > lab.keep_for_verdict_seconds + seconds:
        return True
    return all(done(task, lab.archive) is not None for task in tasks)
