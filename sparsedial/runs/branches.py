"""Runs of several lengths that share their first steps: the shortest comes first, each continues the one before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparsedial.records.answers import Branch, Trained
from sparsedial.records.run import Run
from sparsedial.runs.executor import Task
from sparsedial.runs.in_process import InProcess
from sparsedial.runs.job import Job
from sparsedial.runs.linking import linked
from sparsedial.runs.policy import Listener, carry_out
from sparsedial.runs.ranks.joined import Joined
from sparsedial.runs.run_store import RunStore
from sparsedial.text.prepare import Text
from sparsedial.training.resume import forget_state
from sparsedial.units import human_count


def train_branches(
    jobs: Sequence[Job],
    text: Text,
    out: Path,
    listener: Listener,
    tokens_asked: float | None,
    joined: Joined | None = None,
) -> Trained:
    """Train every run that is not done yet, shortest first. Returns the longest, with the others as its branches."""
    store = RunStore(out / "runs")
    tasks = [_task(job, several=len(jobs) > 1) for job in jobs]
    executor = InProcess(text=text, store=store, joined=joined)
    found = carry_out([(task,) for task in tasks], executor=executor, shelf=store, listener=listener)
    forget_state(store.trunk(jobs[0].trunk))
    *others, longest = (found[job.hash] for job in jobs)
    return Trained(
        **longest,
        checkpoint=linked(store.checkpoint(longest.hash), out),
        branches=tuple(_branch(run) for run in others),
        tokens_asked=tokens_asked,
    )


def _task(job: Job, several: bool) -> Task:
    return Task(
        job=job,
        label=f"training on {human_count(job.recipe.tokens)} tokens",
        splits=("validation", "test"),
        alone=True,
        keep_checkpoint=True,
        keep_trunk=several,
    )


def _branch(run: Run) -> Branch:
    return Branch(**{name: getattr(run, name) for name in Branch.__struct_fields__})
