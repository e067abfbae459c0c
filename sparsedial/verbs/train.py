"""`train`: train one model, from a plan or from single settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsedial.records.answers import Trained, TrainSettingsFile
from sparsedial.records.dry_run import TrainDryRun
from sparsedial.records.recipe import Recipe
from sparsedial.records.record import write
from sparsedial.settings import convert, file_names, fill, setting
from sparsedial.shape.shape import Shape
from sparsedial.store import lock, require_ours
from sparsedial.units import parse_count, parse_counts
from sparsedial.verbs import log_setting
from sparsedial.verbs.described import RUN_DEFAULTS, described, recipes, table_of, with_vocabulary
from sparsedial.verbs.origin import SETTINGS
from sparsedial.verbs.planned import FoundPlan, find_plan, remarks

if TYPE_CHECKING:
    from sparsedial.runs.job import Job

WRITTEN = (SETTINGS, "runs", "text", "checkpoint")


def _shape_parts(value: Any, field: str) -> dict[str, Any]:
    """Check names and types now; missing values and values that do not fit together are found later."""
    return convert(Shape, table_of(value, field, Shape), field)


def _recipe_parts(value: Any, field: str) -> dict[str, Any]:
    return convert(Recipe, table_of(value, field, Recipe), field)


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The model to train: a plan, or a shape with a recipe. Single settings override the plan's."""

    model: str | None = setting(
        None, "a plan or its folder, a config.json, a shape.json or a published name", positional=True, nargs="?"
    )
    text: tuple[str, ...] = setting(
        (), "files or folders of text [Python's standard library]", "FILE,…", parse=file_names
    )
    tokens: float | None = setting(None, "number of training tokens", "N", parse=parse_count)
    branches: tuple[float, ...] = setting(
        (), "tokens of shorter runs that share the first steps of this one (schedule wsd)", "N,…", parse=parse_counts
    )
    shape: dict[str, Any] = setting(
        help="one size of the shape; overrides the model's own", parse=_shape_parts, factory=dict, table=Shape
    )
    recipe: dict[str, Any] = setting(
        help="one setting of the training recipe; overrides the plan's",
        parse=_recipe_parts,
        factory=dict,
        table=Recipe,
        defaults=RUN_DEFAULTS,
    )
    tokenizer: str | None = setting(None, "how text becomes tokens [the plan's own, else bytes]", "bytes|bpe:N|FILE")
    device: str = setting("auto", "device to train on", "cpu|cuda")
    threads: int | None = setting(None, "CPU threads [one per core]", "N")
    out: Path = setting(Path("runs/train"), "the run's folder; the same command continues a stopped run", "DIR")
    log: tuple[str, ...] = setting((), log_setting.HELP, "csv,…", parse=log_setting.log_names)
    force: bool = setting(False, "write to --out although it holds other files; none of them is overwritten")
    dry_run: bool = setting(False, "show what the run would cost and exit")


def train(settings: TrainSettings) -> Trained | TrainDryRun:
    """Train one model and write its checkpoint and its record. Started again, it continues where it stopped.

    With branches, shorter runs come first, and each run continues the one before. Their records share a trunk.

    Raises: UserError for settings that make no model or run, a text that is too small, a folder in use or not writable.
    """
    from sparsedial.runs.linking import left_by, require_link
    from sparsedial.showing.progress import Progress
    from sparsedial.text.prepare import prepare

    plan = find_plan(settings.model) if settings.model else None
    shape_values, drafts = _drafts(settings, plan)
    tokenizer = plan.tokenizer(settings.tokenizer) if plan else settings.tokenizer or "bytes"
    require_ours(settings.out, WRITTEN, settings.force)
    before = require_link(settings.out)
    with lock(settings.out), Progress() as progress:
        text = prepare(settings.text, tokenizer=tokenizer, folder=settings.out / "text")
        shape = with_vocabulary(shape_values, text.tokenizer.vocab_size)
        jobs = [replace(one, shape=shape, text_digest=text.digest, tokenizer=text.tokenizer.digest) for one in drafts]
        for line in remarks(plan, jobs[-1], text):
            progress.note(line)
        if settings.dry_run:
            from sparsedial.runs.costs import dry_run

            return dry_run(jobs[-1], settings.tokens)
        _keep_settings(settings, plan, text.tokenizer.name, jobs)
        from sparsedial.machine.energy import meter
        from sparsedial.runs.branches import train_branches
        from sparsedial.verbs.listening import RunListener, logging

        with logging(settings.log, settings.out) as logs:
            listener = RunListener(progress, meter(jobs[0].device, jobs[0].threads), logs)
            trained = train_branches(jobs, text, settings.out, listener, settings.tokens)
            if left := left_by(before, settings.out):
                progress.note(left)
            return trained


def _drafts(settings: TrainSettings, plan: FoundPlan | None) -> tuple[dict[str, Any], list[Job]]:
    """The given values of the shape, and every run without its text, so that most errors are found before reading text.

    Raises: UserError for settings that make no model or run.
    """
    from sparsedial.kernels import native
    from sparsedial.runs.devices import pick_device, pick_threads
    from sparsedial.runs.job import Job
    from sparsedial.runs.measuring import training_dtype

    values, recipe = described(plan or settings.model, settings.shape, settings.recipe, settings.tokens)
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
        )
        for each in recipes(recipe, settings.branches)
    ]


def _keep_settings(settings: TrainSettings, plan: FoundPlan | None, tokenizer: str, jobs: Sequence[Job]) -> None:
    """Write the resolved settings beside the runs: the plan, the text, the shape and the recipe."""
    asked = TrainSettingsFile(
        plan=str(plan.path.resolve()) if plan else None,
        model=settings.model,
        text=tuple(str(Path(path).resolve()) for path in settings.text),
        tokenizer=settings.tokenizer or tokenizer,
        shape=jobs[-1].shape,
        recipe=jobs[-1].recipe,
        runs=tuple(job.hash for job in jobs),
        plan_edited=plan is not None and plan.edited,
    )
    write(settings.out / SETTINGS, asked)
