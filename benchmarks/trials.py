"""Training runs for comparisons: done once and found again, one thread each, as many at a time as there are cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sparsedial.kernels import native
from sparsedial.machine.hardware import usable_cores
from sparsedial.shape.shape import Shape
from sparsedial.store import RunStore
from sparsedial.sweep.rates import Scan, next_rate
from sparsedial.sweep.workers import Task, run_in_turn, run_tasks
from sparsedial.text.prepare import Text, prepare
from sparsedial.training.recipe import Recipe
from sparsedial.training.run import Job

EVALUATION_TOKENS = 1 << 18


class Quiet:
    """A listener that prints a line for every run that ends."""

    def cell(self, task: Task, message: dict[str, Any]) -> None:
        """A run moved."""

    def done(self, task: Task, record: dict[str, Any]) -> None:
        """A run ended."""
        print(f"  {task.label}: {record['validation_loss'] or record['status']}", flush=True)


class Trials:
    """Runs on the built-in text, kept in a folder."""

    def __init__(self, folder: Path) -> None:
        self.text: Text = prepare((), tokenizer="bytes", folder=folder / "text")
        self.store = RunStore(folder / "runs")

    def task(self, shape: Shape, recipe: Recipe, label: str, alone: bool = False) -> Task:
        """One run, scored on validation text."""
        job = Job(
            shape=shape,
            recipe=recipe,
            text_digest=self.text.digest,
            tokenizer=self.text.tokenizer.digest,
            kernels=native.kind("cpu"),
        )
        return Task(job=job, label=label, evaluation_tokens=EVALUATION_TOKENS, alone=alone)

    def run(self, tasks: Sequence[Task], follow: Callable[..., Any] = lambda task, record: ()) -> list[dict[str, Any]]:
        """Do tasks side by side; their records in order."""
        found = run_tasks(
            tasks,
            store=self.store,
            text_folder=self.text.folder,
            workers=usable_cores(),
            listener=Quiet(),
            follow=follow,
        )
        return [found[task.job.hash] for task in tasks]

    def in_turn(self, tasks: Sequence[Task]) -> list[dict[str, Any]]:
        """Do a few tasks alone on the machine, in turn."""
        found = run_in_turn(tuple(tasks), store=self.store, text_folder=self.text.folder, listener=Quiet())
        return [found[task.job.hash] for task in tasks]

    def scan(self, shape: Shape, recipe: Recipe, rates: Sequence[float], label: str) -> Scan:
        """Losses at these learning rates and at those that follow an open side."""
        points: dict[float, float | None] = {}
        wanted = list(rates)
        while wanted:
            tasks = [self.task(shape, replace(recipe, learning_rate=rate), f"{label}, {rate:.3g}") for rate in wanted]
            for rate, record in zip(wanted, self.run(tasks), strict=True):
                points[rate] = record["validation_loss"] if record["status"] == "finished" else None
            after = next_rate(points)
            wanted = [] if after is None else [after]
        return Scan(
            d_model=shape.d_model,
            experts=shape.experts,
            active_parameters=1,
            experts_per_choice=shape.experts_per_choice,
            tokens=recipe.tokens,
            points=tuple(sorted(points.items())),
        )


def mean_and_error(values: Sequence[float]) -> dict[str, float]:
    """Mean and its standard error."""
    return {"mean": float(np.mean(values)), "standard_error": float(np.std(values, ddof=1) / len(values) ** 0.5)}
