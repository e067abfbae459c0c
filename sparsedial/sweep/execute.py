"""One run from its job to its record: trained, scored, kept; taken up where it stopped."""

from __future__ import annotations

import json
import math
import resource
import statistics
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from sparsedial.errors import UserError
from sparsedial.evaluation.loss import TextLoss, evaluate_text
from sparsedial.machine.energy import Meter, meter
from sparsedial.machine.hardware import BusyWatch
from sparsedial.model.checkpoint import save_checkpoint
from sparsedial.model.transformer import Transformer, initialise
from sparsedial.store import RunStore, write_atomically
from sparsedial.text.batches import repeats, require_windows
from sparsedial.text.prepare import Text
from sparsedial.training.loop import Step, train_steps
from sparsedial.training.memory import settle_memory
from sparsedial.training.optimizer import make_optimizer
from sparsedial.training.resume import forget_state, load_state, save_state
from sparsedial.training.run import Job, Outcome, Run

METRIC_LINES = 300  # kept of a run's steps
SAVE_SECONDS = 30.0  # between two states of an unfinished run
LOST_NATS = 1.0  # above a uniform guess: such a loss after the warm-up ends the run


@dataclass
class _Progress:
    """The driver's own numbers, which a resumed run goes on with."""

    next_step: int = 0
    seconds: float = 0.0
    joules: float = 0.0
    step_seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)  # of the last twentieth
    metrics: list[dict[str, float | None]] = field(default_factory=list)


def execute(
    job: Job,
    text: Text,
    store: RunStore,
    *,
    splits: tuple[str, ...] = ("validation",),
    evaluation_tokens: int | None = None,
    alone: bool = False,
    keep_checkpoint: bool = False,
    save_seconds: float = SAVE_SECONDS,
) -> Generator[Step, None, Run]:
    """Yield a run's steps and return the Run, written to the store last of all.

    An unfinished state of the same job is taken up: on a CPU the result equals the uninterrupted run's bit for bit.

    Raises: UserError where the text is too small for a batch, or the folder cannot be written.
    """
    recipe, folder = job.recipe, store.path(job.hash)
    require_windows(text, batch=recipe.batch, context=recipe.context)
    settle_memory()
    device = torch.device(job.device)
    model = initialise(job.shape, recipe.seed).to(device)
    optimizer = make_optimizer(model, recipe)
    state = load_state(folder, job.hash, model, optimizer)
    progress = _Progress(**state["progress"]) if state else _Progress()
    energy, busy = meter(job.device, job.threads), BusyWatch()
    saved, reason = time.monotonic(), None
    for step in train_steps(model, optimizer, text, recipe, progress.next_step):
        _note(progress, step, recipe.steps, energy)
        reason = _diverged(step, job)
        if reason is not None:
            break
        yield step
        energy.begin()  # what others did meanwhile is not ours
        if time.monotonic() - saved > save_seconds and progress.next_step < recipe.steps:
            save_state(
                folder, job.hash, model, optimizer, {"next_step": progress.next_step, "progress": asdict(progress)}
            )
            saved = time.monotonic()
    began = time.perf_counter()
    scores = {}
    if reason is None:
        for split in splits:
            scores[split] = evaluate_text(
                model, text, split, context=recipe.context, max_tokens=evaluation_tokens, dtype=recipe.dtype
            )
            yield Step(recipe.steps - 1, scores[split].loss, 0.0, 0.0, 0.0, 0)
    outcome = _outcome(job, text, progress, reason, scores, energy, alone, time.perf_counter() - began, busy.share())
    run = Run(job=job, outcome=outcome)
    _keep(run, model, text, store, progress, keep_checkpoint and reason is None)
    return run


def finish(steps: Generator[Step, None, Run]) -> Run:
    """Drive a run to its end."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def _note(progress: _Progress, step: Step, steps: int, energy: Meter) -> None:
    progress.next_step = step.index + 1
    progress.seconds += step.seconds
    progress.joules += energy.joules(step.seconds)
    progress.step_seconds.append(step.seconds)
    if step.index >= steps - max(1, steps // 20):
        progress.losses.append(step.loss)
    if step.index % max(1, steps // METRIC_LINES) == 0 or step.index == steps - 1:
        numbers = asdict(step)
        progress.metrics.append({key: value if math.isfinite(value) else None for key, value in numbers.items()})


def _diverged(step: Step, job: Job) -> str | None:
    if not (math.isfinite(step.loss) and math.isfinite(step.gradient_norm)):
        return f"loss or gradient was not finite at step {step.index}"
    uniform = math.log(job.shape.vocab_size)
    if step.index > 0.2 * job.recipe.steps and step.loss > uniform + LOST_NATS:
        return f"loss {step.loss:.2f} at step {step.index} is above a uniform guess by more than {LOST_NATS:g} nat"
    return None


def _outcome(
    job: Job,
    text: Text,
    progress: _Progress,
    reason: str | None,
    scores: dict[str, TextLoss],
    energy: Meter,
    alone: bool,
    evaluation_seconds: float,
    busy: float | None,
) -> Outcome:
    def score(split: str, name: str) -> float | None:
        return getattr(scores[split], name) if split in scores else None

    return Outcome(
        status="finished" if reason is None else "diverged",
        reason=reason,
        steps_done=progress.next_step,
        train_loss=statistics.fmean(progress.losses) if progress.losses and reason is None else None,
        validation_loss=score("validation", "loss"),
        validation_bits_per_byte=score("validation", "bits_per_byte"),
        test_loss=score("test", "loss"),
        test_bits_per_byte=score("test", "bits_per_byte"),
        seconds=progress.seconds,
        median_step_seconds=statistics.median(progress.step_seconds),
        evaluation_seconds=evaluation_seconds,
        joules=progress.joules if energy.metered and alone else None,
        joules_source=energy.source if energy.metered and alone else f"not metered: {energy.source}",
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        expert_load=scores["validation"].expert_load if "validation" in scores else None,
        repeats=repeats(text, job.recipe.tokens),
        alone=alone,
        machine_busy=busy,
    )


def _keep(run: Run, model: Transformer, text: Text, store: RunStore, progress: _Progress, checkpoint: bool) -> None:
    folder = store.path(run.job.hash)
    lines = "".join(json.dumps(line) + "\n" for line in progress.metrics)
    write_atomically(folder / "metrics.jsonl", lines.encode())
    if checkpoint:
        save_checkpoint(model, folder / "checkpoint", tokenizer=text.tokenizer)
    store.write(run.job.hash, run.record())
    forget_state(folder)


def read_metrics(store: RunStore, run_hash: str) -> list[dict[str, Any]]:
    """The kept steps of a run, in order.

    Raises: UserError where they are missing or damaged.
    """
    path = Path(store.path(run_hash)) / "metrics.jsonl"
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not readable ({error})", hint="delete its folder to have the run done again"
        ) from error
