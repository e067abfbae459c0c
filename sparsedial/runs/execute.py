"""One run from its job to its record: train, score, write. A stopped run is resumed."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from sparsedial.evaluation.loss import evaluate_text
from sparsedial.evaluation.scorer import Scorer
from sparsedial.kernels.metering import meter
from sparsedial.machine.energy import Meter
from sparsedial.machine.hardware import BusyWatch, peak_process_bytes
from sparsedial.model.checkpoint import save_checkpoint
from sparsedial.model.twin import write_like
from sparsedial.model.weights import stream_of
from sparsedial.model.writing import whole_folder
from sparsedial.records.probes import ProbeScores
from sparsedial.records.run import Run
from sparsedial.runs.ahead import compile_ahead
from sparsedial.runs.card_memory import explained, out_of_memory, require_fits
from sparsedial.runs.executor import LOST_SHARE, Split
from sparsedial.runs.job import Job
from sparsedial.runs.ranks.joined import Joined, Stopped
from sparsedial.runs.run_store import RunStore
from sparsedial.runs.scored import Scores, dial_losses, to_score
from sparsedial.runs.state import LiveRun, Tally, begin, metric_of, saved_states
from sparsedial.text.prepare import Text
from sparsedial.text.reference_losses import open_losses
from sparsedial.text.sampler import repeats, share_of
from sparsedial.text.windows import require_windows
from sparsedial.training.dial import comparable
from sparsedial.training.loop import Step, train_readings
from sparsedial.training.memory import settle_memory
from sparsedial.training.resume import forget_state
from sparsedial.training.spikes import MOST_SKIPPED, SNAPSHOT_STEPS, WINDOW, is_spike
from sparsedial.training.token_selection import Selecting

METRIC_LINES = 300  # most lines kept per run
SAVE_SECONDS = 30.0  # between two saved states of an unfinished run
LOST_NATS = 1.0  # above the loss of a uniform guess: a larger loss after the warm-up ends the run


def execute(
    job: Job,
    text: Text,
    store: RunStore,
    *,
    splits: Sequence[Split] = ("validation",),
    evaluation_tokens: int | None = None,
    probes: bool = False,
    alone: bool = False,
    keep_checkpoint: bool = False,
    keep_trunk: bool = False,
    save_seconds: float = SAVE_SECONDS,
    pauses: bool = False,
    joined: Joined | None = None,
) -> Generator[Step | None, None, Run]:
    """Yield a run's steps and return the Run, which is written to the store at the end.

    As one of several ranks: all execute the same job, each with its share of the batches, and the first one writes.

    A saved state of the same job is resumed: on a CPU the result equals an uninterrupted run's bit for bit. The state
    is saved from time to time, when the generator is closed, and on Ctrl-C. A trunk that a shorter run saved
    (`keep_trunk`) is resumed in the same way. With `pauses` None is yielded while a GPU takes steps.

    Raises: UserError where the text is too small for a batch, the losses that select its tokens are not there, or the
        folder cannot be written; or a GPU has too little memory.
    """
    recipe, joined = job.recipe, joined or Joined()
    require_windows(text, batch=recipe.batch, context=recipe.context)
    selecting = _selecting(job, text)
    count = joined.ranks.count
    share = replace(recipe, batch=share_of(recipe.batch, count))
    require_fits(job, count)
    settle_memory()
    with explained(job, count):
        compile_ahead([job.shape], share, job.device, selecting and selecting.share, job.dial)
        live = begin(job, store, joined)
    energy, busy = meter(job.device, job.threads), BusyWatch()
    metered = not joined.ranks.sums([not energy.metered])[0]
    scores: Scores = {}
    try:
        reason = yield from _train(live, text, selecting, energy, keep_trunk, save_seconds, pauses)
        began = time.perf_counter()
        for split, top_k in to_score(job.dial, splits) if reason is None else ():
            scores[split, top_k] = evaluate_text(
                live.model,
                text,
                split,
                context=recipe.context,
                max_tokens=evaluation_tokens,
                dtype=recipe.dtype,
                top_k=top_k,
                ranks=joined.ranks,
            )
            joined.agree_to_stop()
            yield Step(recipe.steps - 1, scores[split, top_k].loss, 0.0, 0.0, 0.0, 0)
        answers = _probe_scores(live, text) if probes and reason is None else None
    except torch.OutOfMemoryError as error:  # of a GPU
        raise out_of_memory(job, count) from error
    except (
        KeyboardInterrupt,
        GeneratorExit,
    ) as stop:  # a generator is closed after a whole step
        if joined.ranks.count == 1 or isinstance(stop, Stopped):  # a rank by itself saves nothing
            live.leave(between_steps=isinstance(stop, GeneratorExit | Stopped))
        raise
    evaluation_seconds = time.perf_counter() - began
    source = joined.metered_words(energy.source) if metered and alone else f"not metered: {energy.source}"
    joules = live.tally.joules if metered and alone else None
    run = _record(
        live, text, selecting, reason, scores, answers, joules, source, alone, evaluation_seconds, busy.share()
    )
    if joined.speaks:
        _keep(run, live, text, keep_checkpoint and reason is None)
    return run


def _selecting(job: Job, text: Text) -> Selecting | None:
    """The losses that select the run's tokens; None where all count.

    Raises: UserError where they are not there.
    """
    chosen = job.token_selection
    return None if chosen is None else Selecting(share=chosen.share, losses=open_losses(text, chosen))


def _train(
    live: LiveRun,
    text: Text,
    selecting: Selecting | None,
    energy: Meter,
    keep_trunk: bool,
    save_seconds: float,
    pauses: bool,
) -> Generator[Step | None, None, str | None]:
    """Run all steps. Returns the reason where the run diverged."""
    job, recipe, joined, saved = live.job, live.job.recipe, live.joined, time.monotonic()
    guarded = recipe.spike_sigmas > 0
    if guarded:
        live.keep()
    again = True
    while again:
        again = False
        tally, trunk = live.tally, job.trunk_steps if keep_trunk else 0
        readings = train_readings(
            live.model,
            live.optimizers,
            text,
            recipe,
            tally.next_step,
            tuple(tally.skipped),
            joined.ranks,
            stop=trunk,
            dial=job.dial,
            teacher=live.teacher,
            selecting=selecting,
            pauses=pauses,
        )
        for steps in readings:
            if not steps:
                try:
                    yield None
                except GeneratorExit:
                    _settle(live, readings, energy)
                    _keep_trunk(live, trunk)
                    return None
                continue
            if guarded and _undone(live, steps[-1]):
                again = True
                break
            joules, due, stop = joined.agreed(_joules(steps, energy), time.monotonic() - saved > save_seconds)
            reason = _noted(live, steps, joules)
            if reason is not None:
                return reason
            yield from steps  # the tally already counts them all, as the weights do
            energy.begin()  # energy used between our steps is not ours
            next_step = live.tally.next_step
            restorable = not guarded or next_step % SNAPSHOT_STEPS == 0
            if guarded and restorable:
                live.keep()
            _keep_trunk(live, trunk)
            if stop:
                raise Stopped
            if restorable and due and next_step < recipe.steps:
                live.save(live.store.unfinished(job.hash), job.hash)
                saved = time.monotonic()
    return None


def _settle(live: LiveRun, readings: Iterator[list[Step]], energy: Meter) -> None:
    """Wait for the steps that a GPU was given before the run is left, and count them: the weights have them too.

    One that diverged is not counted: it changed nothing, and is taken again.
    """
    given: list[Step] = next(readings, list[Step]())
    finite = itertools.takewhile(lambda step: math.isfinite(step.loss) and math.isfinite(step.gradient_norm), given)
    steps = list(finite)
    _noted(live, steps, _joules(steps, energy))


def _keep_trunk(live: LiveRun, trunk: int) -> None:
    """Save the state that other runs begin with, where so many steps are done."""
    if trunk and live.tally.next_step == trunk:
        live.save(live.store.trunk(live.job.trunk), live.job.trunk)


def _undone(live: LiveRun, step: Step) -> bool:
    """Undo a step that is a loss spike or diverged; returns whether it was undone."""
    tally = live.tally
    if len(tally.skipped) >= MOST_SKIPPED:
        return False
    before = comparable(tally.losses, step.index, live.job.draws)
    spiked = is_spike(step.loss, step.gradient_norm, before, live.job.recipe.spike_sigmas)
    if not spiked and _diverged(step, live.job) is None:
        return False
    live.go_back(step)
    return True


def _joules(steps: Sequence[Step], energy: Meter) -> float:
    """What steps took; the meter is read once for all of them, since a reading can take longer than a GPU's step."""
    return energy.joules(sum(step.seconds for step in steps))


def _noted(live: LiveRun, steps: Sequence[Step], joules: float) -> str | None:
    """Count steps as done, up to one with which the run diverged; returns the reason where one did."""
    live.tally.joules += joules
    for step in steps:
        _note(live.tally, step, live.job)
        reason = _diverged(step, live.job)
        if reason is not None:
            return reason
    return None


def _note(tally: Tally, step: Step, job: Job) -> None:
    steps, numbers = job.recipe.steps, 1 if job.dial is None else len(job.dial.top_k_experts)
    tally.next_step = step.index + 1
    tally.seconds += step.seconds
    tally.step_seconds.append(step.seconds)
    tally.losses.append(step.loss)
    del tally.losses[: -max(WINDOW * numbers, steps // 20)]
    if step.index % max(1, steps // METRIC_LINES) == 0 or step.index == steps - 1:
        tally.metrics.append(metric_of(step))


def _diverged(step: Step, job: Job) -> str | None:
    if not (math.isfinite(step.loss) and math.isfinite(step.gradient_norm)):
        return f"loss or gradient was not finite at step {step.index}"
    uniform = math.log(job.shape.vocab_size)
    if step.index > LOST_SHARE * job.recipe.steps and step.loss > uniform + LOST_NATS:
        return f"loss {step.loss:.2f} at step {step.index} is above a uniform guess by more than {LOST_NATS:g} nat"
    return None


def _probe_scores(live: LiveRun, text: Text) -> ProbeScores | None:
    """The model's scores on the probes that are mixed into its text."""
    mixed = text.facts.probes
    if mixed is None:
        return None
    from sparsedial.evaluation.probes import probe_scores  # its statistics are slow to load, and few texts have probes

    return probe_scores(Scorer(live.model, dtype=live.job.recipe.dtype), text.tokenizer, mixed.seed)


def _record(
    live: LiveRun,
    text: Text,
    selecting: Selecting | None,
    reason: str | None,
    scores: Scores,
    probes: ProbeScores | None,
    joules: float | None,
    joules_source: str,
    alone: bool,
    evaluation_seconds: float,
    busy: float | None,
) -> Run:
    """The record of a run that ended, with the reason where it diverged."""
    recipe, tally = live.job.recipe, live.tally
    last = tally.losses[-max(1, recipe.steps // 20) :]
    validation, test = scores.get(("validation", None)), scores.get(("test", None))
    return Run(
        **live.job.inputs(),
        status="finished" if reason is None else "diverged",
        reason=reason,
        steps_done=tally.next_step,
        train_loss=statistics.fmean(last) if last and reason is None else None,
        validation_loss=validation and validation.loss,
        validation_bits_per_byte=validation and validation.bits_per_byte,
        test_loss=test and test.loss,
        test_bits_per_byte=test and test.bits_per_byte,
        seconds=tally.seconds,
        median_step_seconds=statistics.median(tally.step_seconds),
        evaluation_seconds=evaluation_seconds,
        joules=joules,
        joules_source=joules_source,
        peak_memory_bytes=peak_process_bytes(),
        expert_load=validation and validation.expert_load,
        repeats=repeats(text, recipe.tokens),
        alone=alone,
        machine_busy=busy,
        trunk_steps_shared=tally.shared,
        events=tuple(tally.events),
        probes=probes,
        dial_losses=dial_losses(live.job, scores),
        reference_cost=selecting and selecting.losses.facts.cost,
        ranks=live.joined.record(),
        checkpoints=saved_states(live),
        resumes=tuple(tally.resumes),
    )


def _keep(run: Run, live: LiveRun, text: Text, checkpoint: bool) -> None:
    store = live.store
    store.write_metrics(run.hash, live.tally.metrics)
    if checkpoint:
        _write(live, store.checkpoint(run.hash), text)
    store.write(run)
    forget_state(store.unfinished(run.hash))


def _write(live: LiveRun, folder: Path, text: Text) -> None:
    """Write the checkpoint; one that began with another's weights is like it in all else."""
    job, model = live.job, live.model
    if job.start is None:
        save_checkpoint(model, folder, tokenizer=text.tokenizer, trained_for=job.dial)
        return
    with whole_folder(folder) as partial:
        write_like(partial, Path(job.start.path), job.shape, stream_of(model), trained_for=job.dial)
