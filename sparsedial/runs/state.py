"""A run in progress: what its steps change, how it is saved, and how it returns to an earlier step."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from sparsedial.errors import UserError
from sparsedial.model.checkpoint import load
from sparsedial.model.transformer import Transformer, initialise
from sparsedial.records.record import plain
from sparsedial.records.run import Event, Metric, Resume, SavedStates
from sparsedial.records.state import Progress
from sparsedial.runs.job import Job
from sparsedial.runs.ranks.joined import Joined
from sparsedial.runs.run_store import RunStore
from sparsedial.training.inputs import batch_number
from sparsedial.training.loop import Step
from sparsedial.training.optimizer import hold_zeros, make_optimizers
from sparsedial.training.ranks import Alone, Ranks
from sparsedial.training.resume import load_state, restore_state, save_state, training_state


@dataclass
class Tally:
    """The numbers of a run beside its weights; a resumed run continues with them."""

    next_step: int = 0
    seconds: float = 0.0
    joules: float = 0.0
    step_seconds: list[float] = field(default_factory=list[float])
    losses: list[float] = field(default_factory=list[float])
    metrics: list[Metric] = field(default_factory=list[Metric])
    skipped: list[int] = field(default_factory=list[int])  # numbers of skipped batches
    events: list[Event] = field(default_factory=list[Event])
    shared: int = 0  # steps taken from another run's trunk
    states: int = 0  # saved ones
    states_seconds: float = 0.0
    resumes: list[Resume] = field(default_factory=list[Resume])
    stopped: bool = False  # whether the state is saved because the run is being stopped

    @classmethod
    def of(cls, progress: Progress) -> Tally:
        """Go on from what was saved."""
        return msgspec.convert(plain(progress), cls)

    def record(self) -> Progress:
        """The numbers as they are now, to be saved."""
        return msgspec.convert(plain(self), Progress)


@dataclass
class LiveRun:
    """A run in progress: its model, its optimizers, its tally, and whom it learns from beside the text."""

    job: Job
    store: RunStore
    model: Transformer
    optimizers: list[torch.optim.Optimizer]
    tally: Tally
    teacher: Transformer | None = None
    kept: tuple[dict[str, Tensor], Tally] | None = None  # the state to return to after a spike
    joined: Joined = field(default_factory=Joined)

    def save(self, home: Path, key: str) -> None:
        """Save everything that the next step depends on; all ranks call it after the same step, the first one writes.

        Raises: UserError where it cannot be written; the state before stays.
        """
        began, tally = time.perf_counter(), self.tally
        tally.states += 1
        save_state(home, key, self.model, self.optimizers, tally.record(), self.joined.ranks)
        tally.states_seconds += time.perf_counter() - began

    def keep(self) -> None:
        """Copy the state to the host's memory, to go back to it; the copy replaces the one before."""
        held = {} if self.kept is None else self.kept[0]
        self.kept = None  # so that an interruption here leaves no mixture of two states
        state = {
            name: held[name].copy_(tensor) if name in held else tensor.to("cpu", copy=True)
            for name, tensor in training_state(self.model, self.optimizers).items()
        }
        self.kept = (state, copy.deepcopy(self.tally))

    def leave(self, between_steps: bool) -> None:
        """Save the newest state that the run can continue from: the kept one, or the model's after a whole step."""
        if self.kept is not None:
            restore_state(self.model, self.optimizers, self.kept[0])
            self.tally = self._as_kept(self.kept[1])
        elif self.job.recipe.spike_sigmas > 0 or not between_steps:
            return
        if self.tally.next_step:
            # A full disk must not hide the Ctrl-C that is being raised; the earlier saved state is still there.
            self.tally.stopped = True
            with contextlib.suppress(UserError):
                self.save(self.store.unfinished(self.job.hash), self.job.hash)

    def go_back(self, step: Step) -> None:
        """Undo the steps since the kept state, and skip the batch of `step`."""
        assert self.kept is not None
        state, kept = self.kept
        restore_state(self.model, self.optimizers, state)
        batch = batch_number(step.index, self.tally.skipped)
        event = Event(
            kind="spike",
            step=step.index,
            loss=step.loss if math.isfinite(step.loss) else None,
            batch_skipped=batch,
            back_to_step=kept.next_step,
        )
        kept.skipped, kept.events = [*self.tally.skipped, batch], [*self.tally.events, event]
        self.tally = self._as_kept(kept)  # a run that is stopped now remembers both

    def _as_kept(self, kept: Tally) -> Tally:
        """The kept numbers; states that were saved since stay counted."""
        tally = self.tally
        return replace(copy.deepcopy(kept), states=tally.states, states_seconds=tally.states_seconds)


def saved_states(live: LiveRun) -> SavedStates:
    """What `run.json` says of the states that a run saved; the newest is still in its folder.

    Only the rank that writes looks at them there: it may have removed them before another one looks.
    """
    tally, home = live.tally, live.store.unfinished(live.job.hash)
    return SavedStates(
        kept=tally.states,
        seconds=tally.states_seconds,
        overlap_cost=None,
        overlap_cost_reason="no step was taken while a state was written",
        bytes=sum(file.stat().st_size for file in home.iterdir()) if live.joined.speaks and home.exists() else None,
    )


def begin(job: Job, store: RunStore, joined: Joined) -> LiveRun:
    """A new run, a resumed run, or a run that continues the trunk of a shorter one; on all ranks from the same step.

    Raises: UserError where the checkpoint that it starts with, or its teacher, is not readable any more, or the
        ranks do not see the same saved state.
    """
    device = torch.device(job.device)
    model = _first(job).to(device)
    teacher = None if job.teacher is None else load(Path(job.teacher.path)).to(device)
    ranks = joined.ranks
    optimizers = make_optimizers(model, job.recipe, ranks)
    if job.zeros_stay:
        hold_zeros(model, optimizers)
    progress = load_state(store.unfinished(job.hash), job.hash, model, optimizers, ranks=ranks)
    if progress is not None:
        tally = _resumed(Tally.of(progress), ranks)
    elif job.trunk_steps:
        tally = _from_trunk(load_state(store.trunk(job.trunk), job.trunk, model, optimizers, job.trunk_steps, ranks))
    else:
        tally = Tally()
    return LiveRun(
        job=job, store=store, model=model, optimizers=optimizers, tally=tally, teacher=teacher, joined=joined
    )


def _resumed(tally: Tally, ranks: Alone | Ranks) -> Tally:
    """The numbers of a run that goes on, with this start among its resumes."""
    resume = Resume(step=tally.next_step, ranks=ranks.count, reason="stopped" if tally.stopped else "lost")
    return replace(tally, resumes=[*tally.resumes, resume], stopped=False)


def _first(job: Job) -> Transformer:
    """The model before the first step."""
    return initialise(job.shape, job.recipe.seed) if job.start is None else load(Path(job.start.path))


def _from_trunk(progress: Progress | None) -> Tally:
    """The numbers of another run's trunk, all of whose steps are shared; none where it left no trunk."""
    return Tally() if progress is None else replace(Tally.of(progress), shared=progress.next_step)


def metric_of(step: Step) -> Metric:
    """A step's line of `metrics.jsonl`."""
    balance = step.balance
    return Metric(
        index=step.index,
        loss=step.loss if math.isfinite(step.loss) else None,
        gradient_norm=step.gradient_norm if math.isfinite(step.gradient_norm) else None,
        learning_rate=step.learning_rate,
        seconds=step.seconds,
        tokens=step.tokens,
        max_over_mean=balance and balance.load.max_over_mean,
        dead_experts=balance and balance.load.dead_experts,
        entropy=balance and balance.load.entropy,
        bias_drift=balance and balance.bias_drift,
    )
