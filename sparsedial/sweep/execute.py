"""One run from its job to its record: trained, scored, kept; taken up where it stopped."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import statistics
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsedial.errors import UserError
from sparsedial.evaluation.loss import TextLoss, evaluate_text
from sparsedial.machine.energy import Meter, meter
from sparsedial.machine.hardware import BusyWatch, peak_process_bytes
from sparsedial.model.checkpoint import save_checkpoint
from sparsedial.model.transformer import Transformer, initialise
from sparsedial.store import RunStore, write_atomically
from sparsedial.text.prepare import Text
from sparsedial.text.sampler import repeats
from sparsedial.text.windows import require_windows
from sparsedial.training.loop import Step, batch_number, train_steps
from sparsedial.training.memory import settle_memory
from sparsedial.training.optimizer import make_optimizers
from sparsedial.training.resume import forget_state, load_state, restore_state, save_state, training_state
from sparsedial.training.run import Job, Outcome, Run
from sparsedial.training.spikes import MOST_SKIPPED, SNAPSHOT_STEPS, WINDOW, is_spike

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
    losses: list[float] = field(default_factory=list)
    metrics: list[dict[str, float | None]] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)  # batches
    events: list[dict[str, Any]] = field(default_factory=list)
    shared: int = 0  # steps of another run's trunk


@dataclass
class _Live:
    """A run under way: what its steps change."""

    job: Job
    store: RunStore
    model: Transformer
    optimizers: list[torch.optim.Optimizer]
    progress: _Progress
    kept: tuple[dict[str, Tensor], dict[str, Any]] | None = None  # what a spike goes back to

    def save(self, home: Path, key: str) -> None:
        numbers = {"next_step": self.progress.next_step, "progress": asdict(self.progress)}
        save_state(home, key, self.model, self.optimizers, numbers)

    def keep(self) -> None:
        """Remember this step, to go back to it: in the host's memory, in the place of the state kept before."""
        held = {} if self.kept is None else self.kept[0]
        self.kept = None  # an interruption here leaves no half of one state in another
        state = {
            name: held[name].copy_(tensor) if name in held else tensor.to("cpu", copy=True)
            for name, tensor in training_state(self.model, self.optimizers).items()
        }
        self.kept = (state, copy.deepcopy(asdict(self.progress)))

    def leave(self, between_steps: bool) -> None:
        """Save the newest state that the run can go on from: the kept one, or the model's own after a whole step."""
        if self.kept is not None:
            restore_state(self.model, self.optimizers, self.kept[0])
            self.progress = _Progress(**self.kept[1])
        elif self.job.recipe.spike_sigmas > 0 or not between_steps:
            return
        if self.progress.next_step:
            with contextlib.suppress(UserError):  # what was saved before is still there
                self.save(self.store.unfinished(self.job.hash), self.job.hash)

    def go_back(self, step: Step) -> None:
        """Undo the steps since the kept one and leave the batch of `step` out."""
        assert self.kept is not None
        state, numbers = self.kept
        restore_state(self.model, self.optimizers, state)
        batch = batch_number(step.index, self.progress.skipped)
        event = {
            "kind": "spike",
            "step": step.index,
            "loss": step.loss if math.isfinite(step.loss) else None,
            "batch_skipped": batch,
            "back_to_step": numbers["next_step"],
        }
        skipped, events = [*self.progress.skipped, batch], [*self.progress.events, event]
        self.progress = _Progress(**{**copy.deepcopy(numbers), "skipped": skipped, "events": events})
        self.kept = (state, {**numbers, "skipped": skipped, "events": events})  # left now, the run forgets neither


def execute(
    job: Job,
    text: Text,
    store: RunStore,
    *,
    splits: tuple[str, ...] = ("validation",),
    evaluation_tokens: int | None = None,
    alone: bool = False,
    keep_checkpoint: bool = False,
    keep_trunk: bool = False,
    save_seconds: float = SAVE_SECONDS,
) -> Generator[Step, None, Run]:
    """Yield a run's steps and return the Run, written to the store last of all.

    An unfinished state of the same job is taken up: on a CPU the result equals the uninterrupted run's bit for bit.
    One is saved now and then, and when the generator is closed or Ctrl-C comes.
    So is the trunk that a shorter run of the same kind left (`keep_trunk`).

    Raises: UserError where the text is too small for a batch, or the folder cannot be written.
    """
    recipe = job.recipe
    require_windows(text, batch=recipe.batch, context=recipe.context)
    settle_memory()
    live = _begin(job, store)
    energy, busy = meter(job.device, job.threads), BusyWatch()
    scores = {}
    try:
        reason = yield from _train(live, text, energy, keep_trunk, save_seconds)
        began = time.perf_counter()
        for split in splits if reason is None else ():
            scores[split] = evaluate_text(
                live.model, text, split, context=recipe.context, max_tokens=evaluation_tokens, dtype=recipe.dtype
            )
            yield Step(recipe.steps - 1, scores[split].loss, 0.0, 0.0, 0.0, 0)
    except (KeyboardInterrupt, GeneratorExit) as stop:  # a generator is closed where it has yielded: after a step
        live.leave(between_steps=isinstance(stop, GeneratorExit))
        raise
    outcome = _outcome(live, text, reason, scores, energy, alone, time.perf_counter() - began, busy.share())
    run = Run(job=job, outcome=outcome)
    _keep(run, live, text, keep_checkpoint and reason is None)
    return run


def _begin(job: Job, store: RunStore) -> _Live:
    """A new run, or one that was left, or one whose trunk another run of its kind has left."""
    model = initialise(job.shape, job.recipe.seed).to(torch.device(job.device))
    optimizers = make_optimizers(model, job.recipe)
    state = load_state(store.unfinished(job.hash), job.hash, model, optimizers)
    live = _Live(job=job, store=store, model=model, optimizers=optimizers, progress=_Progress())
    if state is None and job.recipe.trunk_steps:
        state = load_state(store.trunk(job.trunk), job.trunk, model, optimizers, job.recipe.trunk_steps)
        if state is not None:
            state["progress"]["shared"] = state["next_step"]
    if state is not None:
        live.progress = _Progress(**state["progress"])
    return live


def _train(
    live: _Live, text: Text, energy: Meter, keep_trunk: bool, save_seconds: float
) -> Generator[Step, None, str | None]:
    """Drive the steps to the end; gives the reason where the run diverged."""
    job, recipe, saved = live.job, live.job.recipe, time.monotonic()
    guarded = recipe.spike_sigmas > 0
    if guarded:
        live.keep()
    again = True
    while again:
        again = False
        steps = train_steps(
            live.model, live.optimizers, text, recipe, live.progress.next_step, tuple(live.progress.skipped)
        )
        for step in steps:
            if guarded and _undone(live, step):
                again = True
                break
            _note(live.progress, step, recipe.steps, energy)
            reason = _diverged(step, job)
            if reason is not None:
                return reason
            yield step
            energy.begin()  # what others did meanwhile is not ours
            next_step = live.progress.next_step
            restorable = not guarded or next_step % SNAPSHOT_STEPS == 0
            if guarded and restorable:
                live.keep()
            if keep_trunk and next_step == recipe.trunk_steps:
                live.save(live.store.trunk(job.trunk), job.trunk)
            if restorable and time.monotonic() - saved > save_seconds and next_step < recipe.steps:
                live.save(live.store.unfinished(job.hash), job.hash)
                saved = time.monotonic()
    return None


def _undone(live: _Live, step: Step) -> bool:
    """Whether a step was a spike, or a loss as of no learning at all, which is undone."""
    progress = live.progress
    if len(progress.skipped) >= MOST_SKIPPED:
        return False
    spiked = is_spike(step.loss, step.gradient_norm, progress.losses, live.job.recipe.spike_sigmas)
    if not spiked and _diverged(step, live.job) is None:
        return False
    live.go_back(step)
    return True


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
    progress.losses.append(step.loss)
    del progress.losses[: -max(WINDOW, steps // 20)]
    if step.index % max(1, steps // METRIC_LINES) == 0 or step.index == steps - 1:
        numbers = {**asdict(step), **(step.balance or {})}
        del numbers["balance"]
        progress.metrics.append({key: value if math.isfinite(value) else None for key, value in numbers.items()})


def _diverged(step: Step, job: Job) -> str | None:
    if not (math.isfinite(step.loss) and math.isfinite(step.gradient_norm)):
        return f"loss or gradient was not finite at step {step.index}"
    uniform = math.log(job.shape.vocab_size)
    if step.index > 0.2 * job.recipe.steps and step.loss > uniform + LOST_NATS:
        return f"loss {step.loss:.2f} at step {step.index} is above a uniform guess by more than {LOST_NATS:g} nat"
    return None


def _outcome(
    live: _Live,
    text: Text,
    reason: str | None,
    scores: dict[str, TextLoss],
    energy: Meter,
    alone: bool,
    evaluation_seconds: float,
    busy: float | None,
) -> Outcome:
    def score(split: str, name: str) -> float | None:
        return getattr(scores[split], name) if split in scores else None

    job, progress = live.job, live.progress
    last = progress.losses[-max(1, job.recipe.steps // 20) :]
    return Outcome(
        status="finished" if reason is None else "diverged",
        reason=reason,
        steps_done=progress.next_step,
        train_loss=statistics.fmean(last) if last and reason is None else None,
        validation_loss=score("validation", "loss"),
        validation_bits_per_byte=score("validation", "bits_per_byte"),
        test_loss=score("test", "loss"),
        test_bits_per_byte=score("test", "bits_per_byte"),
        seconds=progress.seconds,
        median_step_seconds=statistics.median(progress.step_seconds),
        evaluation_seconds=evaluation_seconds,
        joules=progress.joules if energy.metered and alone else None,
        joules_source=energy.source if energy.metered and alone else f"not metered: {energy.source}",
        peak_memory_bytes=peak_process_bytes(),
        expert_load=scores["validation"].expert_load if "validation" in scores else None,
        repeats=repeats(text, job.recipe.tokens),
        alone=alone,
        machine_busy=busy,
        trunk_steps_shared=progress.shared,
        events=progress.events,
    )


def _keep(run: Run, live: _Live, text: Text, checkpoint: bool) -> None:
    folder = live.store.path(run.job.hash)
    lines = "".join(json.dumps(line) + "\n" for line in live.progress.metrics)
    write_atomically(folder / "metrics.jsonl", lines.encode())
    if checkpoint:
        save_checkpoint(live.model, folder / "checkpoint", tokenizer=text.tokenizer)
    live.store.write(run.job.hash, run.record())
    forget_state(live.store.unfinished(run.job.hash))


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
