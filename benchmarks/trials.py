"""Training runs for comparisons: one thread per run, one run per core. Runs that are already done are reused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sparsedial.kernels import native
from sparsedial.machine.hardware import usable_cores
from sparsedial.records.grid import Scan
from sparsedial.records.recipe import Recipe
from sparsedial.records.run import Run
from sparsedial.records.trained_for import TrainedFor
from sparsedial.runs.executor import Group, Moved, Task
from sparsedial.runs.job import Job
from sparsedial.runs.local import Local
from sparsedial.runs.policy import carry_out
from sparsedial.runs.run_store import RunStore
from sparsedial.shape.shape import Shape
from sparsedial.sweep.rates import next_rate, scan_of
from sparsedial.text.prepare import Text, prepare

EVALUATION_TOKENS = 1 << 18


class Quiet:
    """A listener that prints a line for every run that ends."""

    def moved(self, event: Moved) -> None:
        """Show nothing."""

    def ended(self, task: Task, run: Run) -> None:
        """A run ended."""
        print(f"  {task.label}: {run.validation_loss or run.status}", flush=True)


class Trials:
    """Runs on the built-in text, or another one, kept in a folder."""

    def __init__(self, folder: Path, text: Sequence[str] = ()) -> None:
        self.text: Text = prepare(text, tokenizer="bytes", folder=folder / "text")
        self.store = RunStore(folder / "runs")

    def task(
        self,
        shape: Shape,
        recipe: Recipe,
        label: str,
        alone: bool = False,
        dial: TrainedFor | None = None,
        keep: bool = False,
    ) -> Task:
        """One run, scored on validation text; with `keep` its checkpoint stays."""
        job = Job(
            shape=shape,
            recipe=recipe,
            text_digest=self.text.digest,
            tokenizer=self.text.tokenizer.digest,
            kernels=native.kind("cpu"),
            dial=dial,
        )
        return Task(job=job, label=label, evaluation_tokens=EVALUATION_TOKENS, alone=alone, keep_checkpoint=keep)

    def run(self, tasks: Sequence[Task]) -> list[Run]:
        """Do tasks side by side; their runs in order."""
        return self._carry_out([(task,) for task in tasks])

    def in_turn(self, tasks: Sequence[Task]) -> list[Run]:
        """Do a few tasks alone on the machine, in turn."""
        return self._carry_out([tuple(tasks)])

    def _carry_out(self, groups: Sequence[Group]) -> list[Run]:
        executor = Local(text_folder=self.text.folder, runs_folder=self.store.folder, workers=usable_cores())
        found = carry_out(groups, executor=executor, shelf=self.store, listener=Quiet())
        return [found[task.job.hash] for group in groups for task in group]

    def scan(self, shape: Shape, recipe: Recipe, rates: Sequence[float], label: str) -> Scan:
        """Losses at these learning rates and at those that follow an open side."""
        points: dict[float, float | None] = {}
        wanted = list(rates)
        while wanted:
            tasks = [self.task(shape, replace(recipe, learning_rate=rate), f"{label}, {rate:.3g}") for rate in wanted]
            for rate, run in zip(wanted, self.run(tasks), strict=True):
                points[rate] = run.validation_loss if run.finished else None
            after = next_rate(points)
            wanted = [] if after is None else [after]
        return scan_of(shape, recipe.tokens, points)


def mean_and_error(values: Sequence[float]) -> dict[str, float]:
    """Mean and its standard error."""
    return {"mean": float(np.mean(values)), "standard_error": float(np.std(values, ddof=1) / len(values) ** 0.5)}
