"""`train`: train one model, from a plan, from a checkpoint or from single settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsedial.records.answers import Trained, TrainSettingsFile
from sparsedial.records.dry_run import TrainDryRun
from sparsedial.records.record import write
from sparsedial.settings import fill
from sparsedial.shape.shape import Shape
from sparsedial.store import lock, require_ours
from sparsedial.verbs.origin import SETTINGS
from sparsedial.verbs.train.described import described, recipes, with_dial, with_vocabulary
from sparsedial.verbs.train.found import found_model
from sparsedial.verbs.train.planned import Found, FoundPlan, beyond_plan, remarks
from sparsedial.verbs.train.ranks import on_all_ranks
from sparsedial.verbs.train.settings import TrainSettings
from sparsedial.verbs.train.started import FoundStart
from sparsedial.verbs.train.token_settings import asked_tokens

if TYPE_CHECKING:
    from sparsedial.runs.job import Job
    from sparsedial.runs.ranks.joined import Joined

WRITTEN = (SETTINGS, "runs", "text", "checkpoint", "reference")


def train(settings: TrainSettings) -> Trained | TrainDryRun:
    """Train one model and write its checkpoint and its record. Started again, it continues where it stopped.

    A checkpoint is trained further: its shape, its tokenizer and its other files stay, and its optimizer starts anew.
    With a dial the number of experts that tokens visit changes from step to step, and the end states the loss at each.
    With branches, shorter runs come first, and each run continues the one before. Their records share a trunk.
    With a token share the loss counts those tokens of each step that a reference model predicts better.
    Processes that torchrun or Slurm started train it together, and so do as many as `ranks` asks for.

    Raises: UserError for settings that make no model or run, or contradict a checkpoint; a text that is too small, a
        folder in use or not writable; RankLost where one of several processes has gone.
    """
    return on_all_ranks(settings, lambda joined: _trained(settings, joined))


def _trained(settings: TrainSettings, joined: Joined | None) -> Trained | TrainDryRun:
    """The whole command, in one process or as rank 0 of several."""
    found = found_model(settings.model, settings.out)
    from sparsedial.runs.linking import left_by, require_link
    from sparsedial.showing.progress import Progress
    from sparsedial.text.prepare import prepare
    from sparsedial.text.sampler import share_of

    shape_values, drafts = _drafts(settings, found)
    count = joined.ranks.count if joined else settings.ranks or 1
    share_of(drafts[-1].recipe.batch, count)
    asked = asked_tokens(settings.token_share, settings.reference, settings.out, drafts[-1])
    tokenizer = settings.tokenizer or "bytes" if isinstance(found, str | None) else found.tokenizer(settings.tokenizer)
    require_ours(settings.out, WRITTEN, settings.force)
    before = require_link(settings.out)
    with lock(settings.out), Progress() as progress:
        progress.note("reading the text")  # a new tokenizer takes a minute
        text = prepare(settings.text, tokenizer=tokenizer, folder=settings.out / "text")
        shape = with_vocabulary(shape_values, text.tokenizer.vocab_size)
        jobs = [replace(one, shape=shape, text_digest=text.digest, tokenizer=text.tokenizer.digest) for one in drafts]
        for line in remarks(found, jobs[-1], text, settings.token_share):
            progress.note(line)
        if settings.dry_run:
            from sparsedial.runs.costs import dry_run

            cost = asked and asked.expected(text)
            if cost is not None and isinstance(found, FoundPlan):
                progress.note(beyond_plan(found, cost))
            if count == 1:
                progress.note("trying a few steps of this model")  # of a large one they take a minute
            return dry_run(jobs[-1], settings.tokens, settings.token_share, cost, count)
        from sparsedial.kernels.metering import meter
        from sparsedial.runs.branches import train_branches
        from sparsedial.verbs.listening import RunListener, logging

        with logging(settings.log, settings.out) as logs:
            listener = RunListener(progress, meter(jobs[0].device, jobs[0].threads), logs)
            if asked is not None:
                made = asked.made(text, settings.out, listener, progress.note)
                jobs = [replace(one, token_selection=made.selection) for one in jobs]
                if isinstance(found, FoundPlan):
                    progress.note(beyond_plan(found, made.reference.cost))
            _keep_settings(settings, found, text.tokenizer.name, jobs)
            trained = train_branches(jobs, text, settings.out, listener, settings.tokens, joined)
            if left := left_by(before, settings.out):
                progress.note(left)
            return trained


def _drafts(settings: TrainSettings, found: Found) -> tuple[dict[str, Any], list[Job]]:
    """The given values of the shape, and every run without its text, so that most errors are found before reading text.

    Raises: UserError for settings that make no model or run.
    """
    from sparsedial.kernels import native
    from sparsedial.runs.devices import pick_device, pick_threads, training_dtype
    from sparsedial.runs.job import Job

    values, recipe = described(found, settings.shape, settings.recipe, settings.tokens)
    values, dial = with_dial(values, settings.trained_for), settings.trained_for
    device = pick_device(settings.device)
    recipe.setdefault("dtype", training_dtype(device))
    shape = fill(Shape, {"vocab_size": 1, **values}, "shape")
    return values, [
        Job(
            shape=shape,
            recipe=each,
            text_digest="",
            tokenizer="",
            device=device,
            threads=pick_threads(settings.threads),
            kernels=native.kind(device),
            dial=dial,
            start=found.name if isinstance(found, FoundStart) else None,
        )
        for each in recipes(recipe, settings.branches)
    ]


def _keep_settings(settings: TrainSettings, found: Found, tokenizer: str, jobs: Sequence[Job]) -> None:
    """Write the resolved settings beside the runs: the plan, the text, the shape and the recipe."""
    plan = found if isinstance(found, FoundPlan) else None
    asked = TrainSettingsFile(
        plan=str(plan.path.resolve()) if plan else None,
        model=settings.model,
        text=tuple(str(Path(path).resolve()) for path in settings.text),
        tokenizer=settings.tokenizer or tokenizer,
        shape=jobs[-1].shape,
        recipe=jobs[-1].recipe,
        runs=tuple(job.hash for job in jobs),
        plan_edited=plan is not None and plan.edited,
        dial=settings.trained_for,
        token_selection=jobs[-1].token_selection,
    )
    write(settings.out / SETTINGS, asked)
