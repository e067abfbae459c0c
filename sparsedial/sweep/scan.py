"""The first phase: scan learning rates at the corners of the grid, and fit a model of the optimum."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from msgspec.structs import replace

from sparsedial.errors import UserError
from sparsedial.machine.profile import Profile
from sparsedial.records.grid import Cell, LearningRates
from sparsedial.records.recipe import OptimizerName
from sparsedial.records.run import Run
from sparsedial.runs.executor import Task
from sparsedial.sweep.lab import Lab, run_label, token_words
from sparsedial.sweep.layout import LEAST_STEPS, Layout, scan_corners
from sparsedial.sweep.rates import fit_rates, next_rate, scan_of, start_rates


@dataclass(frozen=True, kw_only=True)
class _Corner:
    cell: Cell
    steps: int


def scan_rates(lab: Lab, optimizer: OptimizerName | None = None) -> LearningRates:
    """Scan learning rates at the corners of the lowest budget on validation text, and fit the model of the optimum.

    They are those of the grid's optimizer, or of another one. A fifth scan separates the effect of tokens from that of
    size. With three budgets or more it is the largest dense size at the second budget; otherwise the smallest dense
    size with the tokens of the largest.

    Raises: UserError where every rate of every scan diverged.
    """
    layout, optimizer = lab.layout, optimizer or lab.optimizers[0]
    by = "" if optimizer == lab.optimizers[0] else f", {optimizer}"
    corners = _corners(layout)
    points: dict[_Corner, dict[float, float | None]] = defaultdict(dict)
    tried: dict[str, tuple[_Corner, float]] = {}  # by hash of the job

    def task(corner: _Corner, rate: float) -> Task:
        job = lab.job(layout.shape(corner.cell), corner.steps, layout.batch, rate, lab.seed, optimizer)
        tried[job.hash] = corner, rate
        size = token_words(job.recipe.tokens)  # a corner may have fewer tokens than its budget buys
        label = run_label(corner.cell.d_model, corner.cell.experts, size, f"{by}, learning rate {rate:.3g}")
        return Task(job=job, label=label, evaluation_tokens=lab.evaluation_tokens)

    def follow(ended: Task, run: Run) -> list[Task]:
        corner, rate = tried[ended.job.hash]
        points[corner][rate] = run.validation_loss if run.finished else None
        if len(points[corner]) < planned[corner]:
            return []
        rate_after = next_rate(points[corner])
        if rate_after is None:
            return []
        planned[corner] += 1
        return [task(corner, rate_after)]

    starts = {corner: start_rates(layout.shape(corner.cell)) for corner in corners}
    planned = {corner: len(rates) for corner, rates in starts.items()}
    lab.run([task(corner, rate) for corner in corners for rate in starts[corner]], follow)
    scans = tuple(
        scan_of(layout.shape(corner.cell), corner.steps * layout.tokens_per_step, points[corner]) for corner in corners
    )
    if all(scan.optimum is None for scan in scans):
        raise UserError("every learning rate of every scan diverged", hint="the files runs/*/run.json hold the reasons")
    return LearningRates(optimizer=optimizer, scans=scans, model=fit_rates(scans))


def _corners(layout: Layout) -> list[_Corner]:
    corners = [_Corner(cell=cell, steps=layout.steps(cell)) for cell in scan_corners(layout)]
    dense = [corner for corner in corners if not corner.cell.experts]
    smallest, largest = dense[0], dense[-1]
    if len(layout.budgets) > 2:
        cell = replace(largest.cell, budget_flops=layout.budgets[1])
        corners.append(_Corner(cell=cell, steps=layout.steps(cell)))
    elif smallest.steps >= 2 * largest.steps:
        corners.append(_Corner(cell=smallest.cell, steps=max(LEAST_STEPS, largest.steps)))
    return sorted(corners, key=lambda corner: -corner.cell.experts)  # the slow ones first


def scan_seconds(layout: Layout, profile: Profile, workers: int) -> float:
    """Seconds of one learning rate at every corner, so many runs at once."""

    def step_seconds(corner: _Corner) -> float:
        return float(profile.step_seconds(layout.shape(corner.cell), layout.batch, layout.ladder.context).value)

    steps = [(corner.steps, step_seconds(corner)) for corner in _corners(layout)]
    return sum(count * seconds / profile.speedup(workers, seconds) for count, seconds in steps)
