"""What a study tells its user while it runs: its tasks turned into lines of progress."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from sparsedial.showing.progress import Progress
from sparsedial.sweep.study import Diary
from sparsedial.sweep.workers import Task


class StudyListener:
    """Hears of runs from the sweep and passes them on to the terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._planned = 0.0
        self._diary: Diary | None = None
        self._watts = 0.0

    def plan(self, whole_seconds: float, diary: Diary, watts: float) -> None:
        """What the whole is expected to take, all its starts together, and who writes down what it took."""
        self._planned, self._diary, self._watts = whole_seconds, diary, watts

    def note(self, text: str) -> None:
        """A line of its own."""
        self._progress.note(text)

    def measuring(self, done: int, of: int) -> None:
        """The machine is being timed, in so many turns."""
        if done < of - 1:
            self._progress.cell("machine", "timing steps", done, of)
        else:
            self._progress.forget("machine")

    def cell(self, task: Task, message: dict[str, Any]) -> None:
        """A running task moved."""
        seconds = message["seconds"]
        rate = message["step"] * task.job.recipe.batch * task.job.recipe.context / seconds if seconds else 0.0
        self._progress.cell(
            task.job.hash,
            task.label,
            message["step"],
            task.job.recipe.steps,
            message["loss"],
            rate,
            self._watts / rate if rate else None,
        )
        self._total()

    def done(self, task: Task, record: dict[str, Any]) -> None:
        """A task ended."""
        if self._diary is not None:
            self._diary.ran()
        loss = record["test_loss"] if record["test_loss"] is not None else record["validation_loss"]
        if record["status"] == "diverged":
            text = f"{task.label}: diverged, {record['reason']}"
        elif loss is None:
            text = f"{task.label}: {record['median_step_seconds'] * 1e3:.1f} ms a step"
        else:
            text = f"{task.label}: loss {loss:.4f}"
        self._progress.done(task.job.hash, text)
        self._total()

    def _total(self) -> None:
        if self._diary is not None:
            self._diary.beat()
            self._progress.total(self._diary.clock.elapsed, self._planned)


@contextlib.contextmanager
def listening() -> Iterator[StudyListener]:
    """A listener whose progress closes with the block."""
    with Progress() as progress:
        yield StudyListener(progress)
