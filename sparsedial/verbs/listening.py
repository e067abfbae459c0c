"""Progress of a running study: events of its tasks become lines on the terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sparsedial.records.run import Run
from sparsedial.runs.clock import Clock
from sparsedial.runs.executor import Moved, Task
from sparsedial.showing.progress import Progress


class StudyListener:
    """Receives the events of runs from the sweep and shows them on the terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._planned = 0.0
        self._clock: Clock | None = None
        self._watts = 0.0

    def plan(self, whole_seconds: float, clock: Clock, watts: float) -> None:
        """Set the expected seconds of the study over all its starts, and the clock of those spent."""
        self._planned, self._clock, self._watts = whole_seconds, clock, watts

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
        job = event.task.job
        rate = event.step * job.recipe.batch * job.recipe.context / event.seconds if event.seconds else 0.0
        self._progress.cell(
            job.hash,
            event.task.label,
            event.step,
            job.recipe.steps,
            event.loss,
            rate,
            self._watts / rate if rate else None,
        )
        self._total()

    def ended(self, task: Task, run: Run) -> None:
        """Show that a task ended."""
        loss = run.test_loss if run.test_loss is not None else run.validation_loss
        if not run.finished:
            text = f"{task.label}: diverged, {run.reason}"
        elif loss is None:
            text = f"{task.label}: {run.median_step_seconds * 1e3:.1f} ms a step"
        else:
            text = f"{task.label}: loss {loss:.4f}"
        self._progress.done(task.job.hash, text)
        self._total()

    def _total(self) -> None:
        if self._clock is not None:
            self._progress.total(self._clock.elapsed, self._planned)


@contextlib.contextmanager
def listening() -> Iterator[StudyListener]:
    """A listener whose progress display is closed at the end of the block."""
    with Progress() as progress:
        yield StudyListener(progress)
