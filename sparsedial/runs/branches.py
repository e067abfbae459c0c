"""Runs of several lengths that share their first steps: the shortest comes first, each continues the one before."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Protocol

import torch

from sparsedial.machine.energy import meter
from sparsedial.records.answers import Branch, Trained
from sparsedial.records.run import Event, Run
from sparsedial.runs.execute import execute
from sparsedial.runs.job import Job
from sparsedial.runs.run_store import RunStore
from sparsedial.text.prepare import Text
from sparsedial.training.loop import Step
from sparsedial.training.resume import forget_state


class Display(Protocol):
    """Shows the progress of a run."""

    def note(self, text: str) -> None:
        """Print a line."""
        ...

    def cell(
        self,
        id: str,
        label: str,
        step: int,
        steps: int,
        loss: float | None = None,
        tokens_per_second: float | None = None,
        joules_per_token: float | None = None,
    ) -> None:
        """Show the progress of a run."""
        ...

    def total(self, done_seconds: float, total_seconds: float) -> None:
        """Show how much of the whole is done."""
        ...


def train_branches(jobs: Sequence[Job], text: Text, out: Path, display: Display, tokens_asked: float | None) -> Trained:
    """Train every run that is not done yet, shortest first. Returns the longest, with the others as its branches."""
    torch.set_num_threads(jobs[0].threads)
    store = RunStore(out / "runs")
    runs: list[Run] = []
    for job in jobs:
        run = store.find(job.hash) or _trained(job, text, store, display, keep_trunk=len(jobs) > 1)
        for event in run.events:
            display.note(event_words(event))
        runs.append(run)
    forget_state(store.trunk(jobs[0].trunk))
    *others, longest = runs
    return Trained(
        **longest,
        checkpoint=_linked(store.checkpoint(longest.hash), out),
        branches=tuple(_branch(run) for run in others),
        tokens_asked=tokens_asked,
    )


def _trained(job: Job, text: Text, store: RunStore, display: Display, keep_trunk: bool) -> Run:
    steps = execute(
        job,
        text,
        store,
        splits=("validation", "test"),
        alone=True,
        keep_checkpoint=True,
        keep_trunk=keep_trunk,
    )
    with contextlib.closing(steps):  # after Ctrl-C between two steps, the state is saved before the lock is released
        return _shown(steps, job, display)


def _shown(steps: Generator[Step, None, Run], job: Job, display: Display) -> Run:
    """Run all steps and show the progress."""
    began, first = time.perf_counter(), None
    watts = meter(job.device, job.threads).watts
    tokens = job.recipe.batch * job.recipe.context
    while True:
        try:
            step = next(steps)
        except StopIteration as stop:
            return stop.value
        first = step.index if first is None else first
        elapsed = time.perf_counter() - began
        rate = (step.index - first + 1) * tokens / elapsed
        display.cell(job.hash, "training", step.index + 1, job.recipe.steps, step.loss, rate, watts / rate)
        display.total(elapsed, elapsed + (job.recipe.steps - step.index - 1) * tokens / rate)


def event_words(event: Event) -> str:
    """A line about a spike that was undone."""
    loss = "NaN or infinity" if event.loss is None else f"{event.loss:.2f}"
    return (
        f"step {event.step}: the loss rose to {loss}; went back to step {event.back_to_step}"
        f" and skipped batch {event.batch_skipped}"
    )


def _branch(run: Run) -> Branch:
    return Branch(**{name: getattr(run, name) for name in Branch.__struct_fields__})


def _linked(checkpoint: Path, out: Path) -> str | None:
    """Link `out/checkpoint` to the newest run's checkpoint; None where the run diverged and has none."""
    if not checkpoint.exists():
        return None
    link = out / "checkpoint"
    link.unlink(missing_ok=True)
    link.symlink_to(checkpoint.relative_to(out))
    return str(link)
