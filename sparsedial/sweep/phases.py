"""The two training phases of a study before its verdict: learning rates, then the grid with its open sides followed."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsedial.errors import UserError
from sparsedial.machine.hardware import usable_cores
from sparsedial.machine.profile import Profile
from sparsedial.shape.counts import active_parameters, total_parameters
from sparsedial.shape.shape import Shape
from sparsedial.store import RunStore
from sparsedial.sweep.grid import LEAST_STEPS, Cell, Layout, cell_seconds, next_cell, scan_corners
from sparsedial.sweep.rates import RateModel, Scan, fit_rates, next_rate, start_rates
from sparsedial.sweep.workers import Listener, Task, run_tasks
from sparsedial.text.prepare import Text
from sparsedial.training.recipe import Dtype, Recipe
from sparsedial.training.run import Job
from sparsedial.units import human_count

MOST_THREADS = 16  # for each core
REPEAT_SEED = 1001  # above the study's own and on, for further runs of a cell; the verdict's start at 1 above


class Clock:
    """Seconds of the study so far, over its resumptions, against its limit."""

    def __init__(self, limit_seconds: float, elapsed_seconds: float = 0.0, started: float | None = None) -> None:
        self.limit_seconds = limit_seconds
        self._start = (time.monotonic() if started is None else started) - elapsed_seconds

    @property
    def elapsed(self) -> float:
        """Seconds spent."""
        return time.monotonic() - self._start

    @property
    def remaining(self) -> float:
        """Seconds left; infinite without a limit."""
        return self.limit_seconds - self.elapsed


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What every phase of one study works with."""

    layout: Layout
    profile: Profile
    text: Text
    store: RunStore
    workers: int
    threads: int
    kernels: str
    device: str
    dtype: Dtype
    evaluation_tokens: int
    listener: Listener
    clock: Clock
    seed: int  # of the grid; the verdict's and those of further runs of a cell follow it
    keep_for_verdict_seconds: float

    def job(self, shape: Shape, steps: int, batch: int, learning_rate: float, seed: int) -> Job:
        """The inputs of one run of this study."""
        recipe = Recipe(
            learning_rate=learning_rate,
            steps=steps,
            batch=batch,
            context=self.layout.ladder.context,
            seed=seed,
            dtype=self.dtype,
        )
        return Job(
            shape=shape,
            recipe=recipe,
            text_digest=self.text.digest,
            tokenizer=self.text.tokenizer.digest,
            device=self.device,
            threads=self.threads,
            kernels=self.kernels,
        )

    def run(
        self, tasks: Iterable[Task], follow: Callable[[Task, dict[str, Any]], Iterable[Task]] = lambda task, record: ()
    ) -> dict[str, dict[str, Any]]:
        """Do tasks on the study's workers."""
        return run_tasks(
            tasks,
            store=self.store,
            text_folder=self.text.folder,
            workers=self.workers,
            listener=self.listener,
            follow=follow,
        )


def pick_device(wanted: str) -> str:
    """The kind of device to train on; `auto` is a GPU where PyTorch sees one.

    Raises: UserError for another word, or a GPU that is not there.
    """
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted not in ("cpu", "cuda"):
        raise UserError(f"no device named '{wanted}'", hint="cpu or cuda")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("PyTorch sees no GPU here", hint="--device cpu")
    return wanted


def pick_threads(wanted: int | None) -> int:
    """Threads of a CPU to train with: one per core, unless some are asked for.

    Raises: UserError for none, or for many times more than there are cores.
    """
    cores = usable_cores()
    if wanted is not None and not 1 <= wanted <= MOST_THREADS * cores:
        raise UserError(
            f"--threads {wanted} lies outside 1..{MOST_THREADS * cores}", hint=f"this machine has {cores} cores"
        )
    return wanted or cores


def run_label(d_model: int, experts: int, size: str, what: str = "") -> str:
    """`dense, width 48, 2e+11 FLOPs, seed 1` or `32 experts, width 48, 1.2M tokens`, for progress lines."""
    family = f"{experts} experts" if experts else "dense"
    return f"{family}, width {d_model}, {size}{what}"


@dataclass(frozen=True, kw_only=True)
class _Corner:
    cell: Cell
    steps: int


def scan_rates(setup: Setup) -> tuple[tuple[Scan, ...], RateModel]:
    """Scan learning rates at the corners of the lowest budget on validation text, and fit the model of the optimum.

    A fifth scan parts the effect of tokens from that of size: with a third budget the largest dense size at the
    second one, else the smallest dense size with the tokens of the largest.

    Raises: UserError where every rate of a scan diverged.
    """
    corners = _corners(setup.layout)
    points: dict[_Corner, dict[float, float | None]] = defaultdict(dict)

    def task(corner: _Corner, rate: float) -> Task:
        job = setup.job(setup.layout.shape(corner.cell), corner.steps, setup.layout.batch, rate, setup.seed)
        size = f"{human_count(job.recipe.tokens)} tokens"  # a corner may have fewer than its budget buys
        label = run_label(corner.cell.d_model, corner.cell.experts, size, f", learning rate {rate:.3g}")
        return Task(job=job, label=label, evaluation_tokens=setup.evaluation_tokens, tag=(corner, rate))

    def follow(done: Task, record: dict[str, Any]) -> list[Task]:
        corner, rate = done.tag
        points[corner][rate] = record["validation_loss"] if record["status"] == "finished" else None
        if len(points[corner]) < planned[corner]:
            return []
        rate_after = next_rate(points[corner])
        if rate_after is None:
            return []
        planned[corner] += 1
        return [task(corner, rate_after)]

    starts = {corner: start_rates(setup.layout.shape(corner.cell)) for corner in corners}
    planned = {corner: len(rates) for corner, rates in starts.items()}
    setup.run([task(corner, rate) for corner in corners for rate in starts[corner]], follow)
    scans = tuple(_scan(setup.layout, corner, points[corner]) for corner in corners)
    if all(scan.optimum is None for scan in scans):
        raise UserError(
            "study: every learning rate of every scan diverged", hint="look at runs/*/run.json for the reasons"
        )
    return scans, fit_rates(scans)


def _corners(layout: Layout) -> list[_Corner]:
    corners = [_Corner(cell=cell, steps=layout.steps(cell)) for cell in scan_corners(layout)]
    dense = [corner for corner in corners if not corner.cell.experts]
    smallest, largest = dense[0], dense[-1]
    if len(layout.budgets) > 2:
        cell = replace(largest.cell, budget_flops=layout.budgets[1])
        corners.append(_Corner(cell=cell, steps=layout.steps(cell)))
    elif smallest.steps >= 2 * largest.steps:
        corners.append(replace(smallest, steps=max(LEAST_STEPS, largest.steps)))
    return sorted(corners, key=lambda corner: -corner.cell.experts)  # the slow ones first


def scan_seconds(layout: Layout, profile: Profile) -> float:
    """Seconds of one learning rate at every corner, one after the other."""
    return sum(
        corner.steps * profile.step_seconds(layout.shape(corner.cell), layout.batch, layout.ladder.context).value
        for corner in _corners(layout)
    )


def _scan(layout: Layout, corner: _Corner, points: dict[float, float | None]) -> Scan:
    shape = layout.shape(corner.cell)
    return Scan(
        d_model=corner.cell.d_model,
        experts=corner.cell.experts,
        active_parameters=active_parameters(shape),
        experts_per_choice=shape.experts_per_choice,
        tokens=corner.steps * layout.tokens_per_step,
        points=tuple(sorted(points.items())),
    )


def train_grid(setup: Setup, rates: RateModel, budgets: Sequence[float], done: dict[Cell, dict[str, Any]]) -> None:
    """Train the laid cells of these budgets, following open sides while the time allows; records go into `done`."""
    layout = setup.layout
    waiting: dict[tuple[int, float], int] = defaultdict(int)
    ended: dict[Cell, list[dict[str, Any]]] = defaultdict(list)

    def tasks(cell: Cell) -> list[Task]:
        shape, repeats = layout.shape(cell), layout.repeats(cell.budget_flops)
        rate, first_repeat = rates.rate(shape, layout.tokens(cell)), setup.seed + REPEAT_SEED
        label = run_label(cell.d_model, cell.experts, f"{cell.budget_flops:.2g} FLOPs")
        waiting[cell.experts, cell.budget_flops] += repeats
        return [
            Task(
                job=setup.job(shape, layout.steps(cell), layout.batch, rate, seed),
                label=label + (f", seed {seed}" if repeats > 1 else ""),
                evaluation_tokens=setup.evaluation_tokens,
                tag=cell,
            )
            for seed in (setup.seed, *range(first_repeat, first_repeat + repeats - 1))
        ]

    def follow(task: Task, record: dict[str, Any]) -> list[Task]:
        cell: Cell = task.tag
        ended[cell].append(record)
        if len(ended[cell]) == layout.repeats(cell.budget_flops):
            done[cell] = merged(ended[cell])
        line = (cell.experts, cell.budget_flops)
        waiting[line] -= 1
        after = next_cell(layout, *line, line_losses(done, *line)) if waiting[line] == 0 else None
        if after is None or after in done:
            return []
        wanted = tasks(after)
        seconds = len(wanted) * cell_seconds(layout, setup.profile, after)
        affordable = setup.clock.remaining > setup.keep_for_verdict_seconds + seconds
        if affordable or all(task.done(setup.store) is not None for task in wanted):
            return wanted
        waiting[line] -= len(wanted)
        return []

    cells = [cell for cell in layout.cells if cell.budget_flops in budgets]
    cells.sort(key=lambda cell: -cell_seconds(layout, setup.profile, cell))
    setup.run([task for cell in cells for task in tasks(cell)], follow)


def merged(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A cell's record from its runs with several seeds: the first one's, with the mean loss of those that finished."""
    finished = sorted(
        (record for record in records if record["status"] == "finished"), key=lambda record: record["recipe"]["seed"]
    )
    if len(finished) <= len(records) / 2:
        return next(record for record in records if record["status"] != "finished")
    losses = [record["validation_loss"] for record in finished]
    bits = [record["validation_bits_per_byte"] for record in finished]
    return {
        **finished[0],
        "validation_loss": float(np.mean(losses)),
        "validation_bits_per_byte": float(np.mean(bits)),
        "seed_losses": losses,
    }


def line_losses(done: dict[Cell, dict[str, Any]], experts: int, budget_flops: float) -> dict[int, float]:
    """Validation loss by width, for one sparsity at one budget; a diverged cell counts as infinitely bad."""
    return {
        cell.d_model: record["validation_loss"] if record["status"] == "finished" else math.inf
        for cell, record in done.items()
        if (cell.experts, cell.budget_flops) == (experts, budget_flops)
    }


def law_rows(layout: Layout, done: dict[Cell, dict[str, Any]]) -> dict[str, np.ndarray]:
    """The finished cells as the columns that laws are fitted to."""
    rows = [(cell, layout.shape(cell), record) for cell, record in done.items() if record["status"] == "finished"]
    columns: dict[str, list[float]] = {
        "loss": [record["validation_loss"] for _, _, record in rows],
        "total_parameters": [total_parameters(shape) for _, shape, _ in rows],
        "active_parameters": [active_parameters(shape) for _, shape, _ in rows],
        "tokens": [record["tokens"] for _, _, record in rows],
        "sparsity": [shape.sparsity for _, shape, _ in rows],
        "experts": [shape.experts_per_choice for _, shape, _ in rows],
        "flops": [cell.budget_flops for cell, _, _ in rows],
        "d_model": [cell.d_model for cell, _, _ in rows],
    }
    return {name: np.array(values, dtype=float) for name, values in columns.items()}
