"""`train`: train one model, planned or described."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsedial.errors import UserError
from sparsedial.machine.energy import meter
from sparsedial.machine.hardware import device_bytes
from sparsedial.machine.memory import step_bytes
from sparsedial.machine.profile import VALUE_BYTES
from sparsedial.settings import convert, file_names, fill
from sparsedial.shape.config import fitting_family
from sparsedial.shape.counts import active_parameters, total_parameters
from sparsedial.shape.published import find_shape
from sparsedial.shape.shape import Shape
from sparsedial.store import RunStore, lock, read_json, write_json
from sparsedial.training.recipe import MOST_COUNT, Recipe
from sparsedial.units import human_bytes, human_count, parse_count, parse_counts
from sparsedial.verbs.origin import SETTINGS

if TYPE_CHECKING:
    from sparsedial.text.prepare import Text
    from sparsedial.training.run import Job

RUN_DEFAULTS = {"batch": 16}
SPIKE_SIGMAS = 6.0  # a single long run is worth guarding; a study's short ones are data as they come
WARMUP_SHARE = 0.05  # of the shortest run, where several share their beginning


def _parts(cls: type, name: str) -> Callable[[Any], dict[str, Any]]:
    """A reader of nested settings (`--shape.layers 4`): names and types now, what is missing and fits later."""
    known = [item.name for item in dataclasses.fields(cls)]

    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise UserError(f"{name}: '{value}' is no table of settings", hint=f"like --{name}.{known[0]} 4")
        return convert(cls, value, name)

    return read


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What is trained: a plan, or a shape with a recipe; single settings override the plan's."""

    model: str | None = field(
        default=None,
        metadata={
            "positional": True,
            "nargs": "?",
            "help": "a plan.json of a study, a config.json, a shape.json or a published name",
        },
    )
    text: tuple[str, ...] = field(
        default=(),
        metadata={"parse": file_names, "metavar": "FILE,…", "help": "files or folders [Python's standard library]"},
    )
    tokens: float | None = field(
        default=None,
        metadata={"parse": lambda text: parse_count(text, "--tokens"), "metavar": "N", "help": "to learn from"},
    )
    branches: tuple[float, ...] = field(
        default=(),
        metadata={
            "parse": lambda text: parse_counts(text, "--branches"),
            "metavar": "N,…",
            "help": "shorter runs, in tokens, that share this one's beginning (by schedule wsd)",
        },
    )
    shape: dict[str, Any] = field(
        default_factory=dict,
        metadata={"parse": _parts(Shape, "shape"), "dotted": "layers", "help": "one size; over the model's own"},
    )
    recipe: dict[str, Any] = field(
        default_factory=dict,
        metadata={"parse": _parts(Recipe, "recipe"), "dotted": "learning_rate", "help": "one setting of the training"},
    )
    tokenizer: str = field(default="bytes", metadata={"metavar": "bytes|bpe:N|FILE", "help": "how text becomes tokens"})
    device: str = field(default="auto", metadata={"metavar": "cpu|cuda", "help": "where to train"})
    threads: int | None = field(default=None, metadata={"metavar": "N", "help": "of a CPU [one per core]"})
    out: Path = field(
        default=Path("runs/train"), metadata={"metavar": "DIR", "help": "its folder; the same command goes on there"}
    )
    dry_run: bool = field(default=False, metadata={"help": "say what it would cost, and stop"})


def train(settings: TrainSettings) -> dict[str, Any]:
    """Train one model and leave its checkpoint and record; started again, it goes on where it stopped.

    With branches, shorter runs are finished first, each going on from the one before; their records share a trunk.

    Raises: UserError for settings that make no model or no run, a text too small, a folder in use or not writable.
    """
    from sparsedial.kernels import native
    from sparsedial.sweep.phases import pick_device, pick_threads
    from sparsedial.text.prepare import prepare
    from sparsedial.training.run import Job

    shape_values, recipe_values = _described(settings)
    device = pick_device(settings.device)
    recipe_values.setdefault("dtype", "bfloat16" if device == "cuda" else "float32")
    drafts = [  # what can be wrong without a text is found before it is read
        Job(
            shape=fill(Shape, {"vocab_size": 1, **shape_values}, "shape"),
            recipe=recipe,
            text_digest="",
            tokenizer="",
            device=device,
            threads=pick_threads(settings.threads),
            kernels=native.kind(device),
        )
        for recipe in _recipes(recipe_values, settings.branches)
    ]
    with lock(settings.out):
        text = prepare(settings.text, tokenizer=settings.tokenizer, folder=settings.out / "text")
        shape = _with_vocabulary(shape_values, text)
        jobs = [
            replace(draft, shape=shape, text_digest=text.digest, tokenizer=text.tokenizer.digest) for draft in drafts
        ]
        if settings.dry_run:
            return {**_costs(jobs[-1]), "tokens_asked": settings.tokens}
        _keep_settings(settings, jobs)
        return {**_train(jobs, text, settings.out), "tokens_asked": settings.tokens}


def _keep_settings(settings: TrainSettings, jobs: Sequence[Job]) -> None:
    """What was asked for, resolved, beside the runs: which plan, which text, which shape and recipe."""
    plan = settings.model and _plan_file(settings.model)
    write_json(
        settings.out / SETTINGS,
        {
            "plan": str(plan.resolve()) if plan else None,
            "model": settings.model,
            "text": [str(Path(path).resolve()) for path in settings.text],
            "tokenizer": settings.tokenizer,
            "shape": jobs[-1].shape.record(),
            "recipe": asdict(jobs[-1].recipe),
            "runs": [job.hash for job in jobs],
        },
    )


def _recipes(recipe: dict[str, Any], branches: tuple[float, ...]) -> list[Recipe]:
    """The recipes of all runs, shortest first; one warm-up for all, so that they begin alike."""
    if not branches:
        return [fill(Recipe, recipe, "recipe")]
    per_step = int(recipe["batch"]) * int(recipe["context"])
    steps = sorted({max(1, round(tokens / per_step)) for tokens in branches})
    if steps[-1] >= int(recipe["steps"]):
        raise UserError(
            f"train: a branch of {human_count(steps[-1] * per_step)} tokens is not shorter than the run of"
            f" {human_count(int(recipe['steps']) * per_step)}",
            hint="--tokens is the longest",
        )
    warmup = recipe.get("warmup_steps") or max(1, round(WARMUP_SHARE * steps[0]))
    lengths = [{**recipe, "steps": count, "warmup_steps": warmup} for count in (*steps, recipe["steps"])]
    recipes = [fill(Recipe, values, "recipe") for values in lengths]
    if not recipes[0].trunk_steps:
        shortest = recipes[0]
        raise UserError(
            f"train: a run of {human_count(shortest.tokens)} tokens by schedule={shortest.schedule},"
            f" decay_share={shortest.decay_share:g} shares no step with a longer one, so it is no branch",
            hint="--recipe.schedule wsd, with a decay_share that leaves steps before the rate falls",
        )
    return recipes


def _described(settings: TrainSettings) -> tuple[dict[str, Any], dict[str, Any]]:
    """The shape, as far as it is described, and the recipe's settings."""
    base: dict[str, Any] = {}
    recipe: dict[str, Any] = dict(RUN_DEFAULTS)
    if settings.model is not None:
        plan = _plan(settings.model)
        base = plan["shape"] if plan else find_shape(settings.model)[1].record()
        recipe |= convert(Recipe, plan["recipe"], settings.model) if plan else {}
    recipe["spike_sigmas"] = SPIKE_SIGMAS
    values = {**base, **settings.shape}
    if not values:
        raise UserError(
            "train: no model", hint="name a plan.json or a published model, or give --shape.d_model and so on"
        )
    recipe |= settings.recipe
    recipe.setdefault("context", values.get("context"))
    for name in ("batch", "context"):
        if recipe[name] is not None and not 1 <= recipe[name] <= MOST_COUNT:
            raise UserError(f"recipe: {name}={recipe[name]:.3g} lies outside 1..{MOST_COUNT}")
    if settings.tokens is not None:
        if "steps" in settings.recipe:
            raise UserError("train: --tokens and --recipe.steps contradict each other", hint="give one of them")
        if not recipe["context"]:
            raise UserError("train: --tokens needs a context", hint="--shape.context 256")
        recipe["steps"] = max(1, round(settings.tokens / (int(recipe["batch"]) * int(recipe["context"]))))
    for name, flag in (("steps", "--tokens"), ("learning_rate", "--recipe.learning_rate")):
        if name not in recipe:
            raise UserError(f"train: {name} is not set", hint=f"give {flag}")
    return values, recipe


def _plan_file(word: str) -> Path | None:
    """The plan.json that a word names, itself or by its folder; None where it names a model."""
    path = Path(word)
    if path.is_dir() and (path / "plan.json").exists():
        path = path / "plan.json"
    return path if path.name == "plan.json" else None


def _plan(word: str) -> dict[str, Any] | None:
    path = _plan_file(word)
    if path is None:
        return None
    plan = read_json(path)
    if not isinstance(plan.get("shape"), dict) or not isinstance(plan.get("recipe"), dict):
        raise UserError(f"{path}: holds no shape with a recipe", hint="a study writes such a plan.json")
    return plan


def _with_vocabulary(values: dict[str, Any], text: Text) -> Shape:
    """The shape, its vocabulary that of the tokenizer where it was left open."""
    shape = fill(Shape, {"vocab_size": text.tokenizer.vocab_size, **values}, "shape")
    if shape.vocab_size < text.tokenizer.vocab_size:
        raise UserError(
            f"train: vocab_size={shape.vocab_size} holds not all {text.tokenizer.vocab_size} tokens of the tokenizer",
            hint="give the --tokenizer that the plan was made with",
        )
    return shape


def _costs(job: Job) -> dict[str, Any]:
    """What a run would cost: counted, and measured over a few steps of the model itself where this machine holds it."""
    shape, recipe = job.shape, job.recipe
    layers = shape.layers + shape.mtp_layers  # a module of multi-token prediction holds what a layer does
    parts = step_bytes(replace(shape, layers=layers), recipe.batch, recipe.context, VALUE_BYTES[recipe.dtype])
    held = device_bytes(job.device)
    counted = {
        "dry_run": True,
        "total_parameters": total_parameters(shape),
        "active_parameters": active_parameters(shape),
        "tokens": recipe.tokens,
        "flops": job.flops,
        "memory_parts": parts.record(),
        "dollars": None,
        "dollars_reason": "no price was given",
    }
    if parts.total > held:
        reason = f"not measured: a step takes more than the {human_bytes(held)} that this machine has"
        return {
            **counted,
            **_memory(job, float(parts.total), float(parts.weights + parts.moments), "counted part by part"),
            **dict.fromkeys(("seconds", "joules", "joules_source")),
            "seconds_reason": reason,
            "joules_reason": reason,
        }
    return {**counted, **_measured(job)}


def _measured(job: Job) -> dict[str, Any]:
    """Seconds, joules and peak memory of a few steps, the first two for all steps of the run."""
    from sparsedial.machine.timing import measure_in_turn
    from sparsedial.sweep.timed import peak_by, step_by

    asked = job.shape, job.recipe, job.device, job.threads
    timing = measure_in_turn({"step": step_by(*asked)}, rounds=2, round_seconds=1.0)["step"]
    power = meter(job.device, job.threads)
    seconds = timing.median_seconds * job.recipe.steps
    return {
        **_memory(job, *peak_by(*asked), "measured: ten steps of this model in a process of their own"),
        "seconds": seconds,
        "joules": seconds * power.watts,
        "joules_source": power.source,
    }


def _memory(job: Job, step_bytes: float, state_bytes: float, source: str) -> dict[str, Any]:
    """What a step holds and, beside it, the copy of weights and moments that a guarded run goes back to at a spike.

    The copy lies in the machine's own memory, which on a CPU is where the step is.
    """
    if not job.recipe.spike_sigmas:
        return {"memory_bytes": step_bytes, "guard_copy_bytes": 0.0, "memory_source": source}
    copy = f"{human_bytes(state_bytes)} for the spike guard's copy of weights and moments"
    if job.device == "cpu":
        return {
            "memory_bytes": step_bytes + state_bytes,
            "guard_copy_bytes": state_bytes,
            "memory_source": f"{source}, and {copy}",
        }
    return {
        "memory_bytes": step_bytes,
        "guard_copy_bytes": state_bytes,
        "memory_source": f"{source}; besides, outside of the GPU, {copy}",
    }


def _train(jobs: Sequence[Job], text: Text, out: Path) -> dict[str, Any]:
    """Train every run, shortest first; gives the longest's record, the others among it."""
    import torch

    from sparsedial.showing.progress import Progress
    from sparsedial.sweep.execute import execute
    from sparsedial.training.resume import forget_state

    torch.set_num_threads(jobs[0].threads)
    store = RunStore(out / "runs")
    records = []
    with Progress() as progress:
        family = fitting_family(jobs[0].shape)
        if family is None:
            progress.note("no family of transformers has such a shape: Sparsedial alone will read its checkpoint")
        for job in jobs:
            record = store.find(job.hash)
            if record is None:
                steps = execute(
                    job,
                    text,
                    store,
                    splits=("validation", "test"),
                    alone=True,
                    keep_checkpoint=True,
                    keep_trunk=len(jobs) > 1,
                )
                with contextlib.closing(steps):  # Ctrl-C between two steps: their state is saved before the lock goes
                    record = _drive(steps, job, progress)
            for event in record["events"]:
                progress.note(_event_words(event))
            records.append(record)
    forget_state(store.trunk(jobs[0].trunk))
    return {
        **records[-1],
        "checkpoint": _linked(store.path(jobs[-1].hash) / "checkpoint", out),
        "branches": [_branch(record) for record in records[:-1]],
    }


def _event_words(event: Mapping[str, Any]) -> str:
    loss = "no number" if event["loss"] is None else f"{event['loss']:.2f}"
    return (
        f"step {event['step']}: the loss rose to {loss}; went back to step {event['back_to_step']}"
        f" and left batch {event['batch_skipped']} out"
    )


def _branch(record: Mapping[str, Any]) -> dict[str, Any]:
    names = ("hash", "trunk", "tokens", "status", "validation_loss", "test_loss", "trunk_steps_shared")
    return {name: record[name] for name in names}


def _linked(checkpoint: Path, out: Path) -> str | None:
    """`out/checkpoint`, made to point at the newest run's; None where a diverged run left none."""
    if not checkpoint.exists():
        return None
    link = out / "checkpoint"
    link.unlink(missing_ok=True)
    link.symlink_to(checkpoint.relative_to(out))
    return str(link)


def _drive(steps: Any, job: Job, progress: Any) -> dict[str, Any]:
    began, first = time.perf_counter(), None
    watts = meter(job.device, job.threads).watts
    tokens = job.recipe.batch * job.recipe.context
    while True:
        try:
            step = next(steps)
        except StopIteration as stop:
            return stop.value.record()
        first = step.index if first is None else first
        elapsed = time.perf_counter() - began
        rate = (step.index - first + 1) * tokens / elapsed
        progress.cell(job.hash, "training", step.index + 1, job.recipe.steps, step.loss, rate, watts / rate)
        progress.total(elapsed, elapsed + (job.recipe.steps - step.index - 1) * tokens / rate)
