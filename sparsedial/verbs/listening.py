"""Progress of runs: events of their tasks become lines on the terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from sparsedial.machine.energy import LivePower, Meter, Power
from sparsedial.records.run import Run
from sparsedial.runs.clock import Clock
from sparsedial.runs.executor import Moved, Task
from sparsedial.showing.logs import Log, open_log
from sparsedial.showing.progress import Progress
from sparsedial.showing.spikes import event_words


class RunListener:
    """Receives the events of the runs of `train`, shows them on the terminal and writes them to logs."""

    def __init__(self, progress: Progress, meter: Meter, logs: Sequence[Log] = ()) -> None:
        self._progress, self._logs = progress, logs
        self._power, self._scored = LivePower(meter), set[str]()
        self._began = time.monotonic()

    def moved(self, event: Moved) -> None:
        """Show the progress of the running task, and the time that it has left; behind its last step it is scored."""
        job = event.task.job
        if job.hash in self._scored:
            return
        show_moved(self._progress, event, self._power)
        log_moved(self._logs, event)
        elapsed = time.monotonic() - self._began
        left = (job.recipe.steps - event.step - 1) / event.steps_per_second
        self._progress.total(elapsed, elapsed + left)
        if event.step + 1 == job.recipe.steps:
            self._scored.add(job.hash)
            self._progress.forget(job.hash)
            self._progress.note(f"{event.task.label}: scoring held-out text")

    def ended(self, task: Task, run: Run) -> None:
        """Show that a task ended, and its spikes that were undone."""
        for event in run.events:
            self._progress.note(event_words(event))
        self._progress.done(task.job.hash, ended_words(task, run))
        log_ended(self._logs, task, run)


class StudyListener:
    """Receives the events of runs from the sweep, shows them on the terminal and writes them to logs."""

    def __init__(self, progress: Progress, logs: Sequence[Log] = ()) -> None:
        self._progress, self._logs = progress, logs
        self._planned = 0.0
        self._clock: Clock | None = None
        self._power: Power | None = None

    def plan(self, whole_seconds: float, clock: Clock, power: Power) -> None:
        """Set the expected seconds of the study over all its starts, and the clock of those spent."""
        self._planned, self._clock, self._power = whole_seconds, clock, power

    def note(self, text: str) -> None:
        """Print a line."""
        self._progress.note(text)

    def measuring(self, done: int, of: int) -> None:
        """Show how many of the turns that time the machine are done."""
        if done < of - 1:
            self._progress.cell("machine", "timing steps", done, of)
        else:
            self._progress.forget("machine")

    def moved(self, event: Moved) -> None:
        """Show the progress of a running task."""
        show_moved(self._progress, event, self._power)
        log_moved(self._logs, event)
        self._total()

    def ended(self, task: Task, run: Run) -> None:
        """Show that a task ended."""
        self._progress.done(task.job.hash, ended_words(task, run))
        log_ended(self._logs, task, run)
        self._total()

    def _total(self) -> None:
        if self._clock is not None:
            self._progress.total(self._clock.elapsed, self._planned)


def show_moved(progress: Progress, event: Moved, power: Power | None) -> None:
    """Show the step, loss and speed of a running task, and its energy where a power is known."""
    job = event.task.job
    rate = event.steps_per_second * job.recipe.batch * job.recipe.context
    watts = power.watts if power else None
    energy, estimated = watts / rate if watts and rate else None, not (power and power.metered)
    progress.cell(job.hash, event.task.label, event.step + 1, job.recipe.steps, event.loss, rate, energy, estimated)


def log_moved(logs: Sequence[Log], event: Moved) -> None:
    """Write the loss and the speed of a running task to the logs."""
    recipe = event.task.job.recipe
    per_step = recipe.batch * recipe.context
    values = {
        "tokens": (event.step + 1) * per_step,
        "loss": event.loss,
        "tokens_per_second": event.steps_per_second * per_step,
    }
    for log in logs:
        log.write(event.task.curve, event.step + 1, values)


def log_ended(logs: Sequence[Log], task: Task, run: Run) -> None:
    """Write the losses on held-out text of a run that ended to the logs."""
    scores = {"validation_loss": run.validation_loss, "test_loss": run.test_loss}
    values = {"tokens": float(run.tokens), **{name: loss for name, loss in scores.items() if loss is not None}}
    for log in logs:
        log.write(task.curve, run.steps_done, values)


def ended_words(task: Task, run: Run) -> str:
    """`dense, width 48, 1.2M tokens: loss 3.1416`, or why the run ended early."""
    loss = run.test_loss if run.test_loss is not None else run.validation_loss
    if not run.finished:
        return f"{task.label}: diverged, {run.reason}"
    if loss is None:
        return f"{task.label}: {run.median_step_seconds * 1e3:.1f} ms a step"
    return f"{task.label}: loss {loss:.4f}"


@contextlib.contextmanager
def logging(names: Sequence[str], folder: Path) -> Iterator[list[Log]]:
    """Logs by name, which are closed at the end of the block.

    Raises: UserError where the library of one is not installed, or the folder cannot be written.
    """
    with contextlib.ExitStack() as opened:
        logs: list[Log] = []
        for name in names:
            logs.append(open_log(name, folder))
            opened.callback(logs[-1].close)
        yield logs


@contextlib.contextmanager
def listening(logs: Sequence[str], folder: Path) -> Iterator[StudyListener]:
    """A listener whose progress display and logs are closed at the end of the block."""
    with Progress() as progress, logging(logs, folder) as opened:
        yield StudyListener(progress, opened)
