"""The notebook of a running study: `study.json`, updated as it goes, with the time spent over all its starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from sparsedial.errors import UserError
from sparsedial.records.grid import LearningRates, Prediction
from sparsedial.records.kept import KeptRuns
from sparsedial.records.launch import LaunchSoFar
from sparsedial.records.record import try_read, write
from sparsedial.records.run import Run
from sparsedial.records.study import (
    STUDY_FILE,
    CellCounts,
    Frozen,
    Phase,
    RunningStudy,
    Study,
    StudyStatus,
    TimedSteps,
    VerdictSeeds,
    read_study,
)
from sparsedial.runs.clock import Clock
from sparsedial.runs.executor import Moved, Task
from sparsedial.runs.policy import Listener
from sparsedial.store import Fault, in_use

BEAT_SECONDS = 5.0  # between two updates of the spent time


class Notebook:
    """What a study has fixed, found and spent so far.

    Nothing is written before the layout is fixed: a start that only measured does not bind its folder. Without a path,
    nothing is written to disk.
    """

    def __init__(self, path: Path | None, study: RunningStudy | None = None) -> None:
        self.path = path
        self.study = study
        self._phases = {phase.name: phase for phase in (study.phases if study else ())}
        self._phase, self._runs = "set-up", 0
        self.spent_seconds = study.elapsed_seconds if study else 0.0  # over all starts, at the last count
        self.clock: Clock | None = None  # set by `start`
        self.launch: Callable[[], LaunchSoFar | None] = lambda: study and study.launch  # who trained what, by now

    def start(self, limit_seconds: float) -> Clock:
        """Begin to count time, on top of the time that earlier starts spent."""
        self.clock = Clock(limit_seconds, self.spent_seconds)
        return self.clock

    @property
    def set_up_seconds(self) -> float:
        """Seconds for measuring and planning, in this start or in the earlier one that did it."""
        if self.frozen is not None:
            return self.frozen.set_up_seconds or 0.0
        return self.clock.elapsed if self.clock is not None else 0.0

    @property
    def frozen(self) -> Frozen | None:
        """What this start or an earlier one has fixed."""
        return self.study and self.study.frozen

    def freeze(self, frozen: Frozen) -> None:
        """Fix the inputs and the layout; from now on the folder belongs to this study."""
        self.study = RunningStudy(frozen=frozen, launch=self.launch())
        self._save(self.study)

    def keep(
        self,
        *,
        learning_rates: LearningRates | None = None,
        other_learning_rates: tuple[LearningRates, ...] | None = None,
        prediction: Prediction | None = None,
        selection_seeds: VerdictSeeds | None = None,
        verdict_seeds: VerdictSeeds | None = None,
        timed_steps: TimedSteps | None = None,
        kept_runs: KeptRuns | None = None,
        cells: CellCounts | None = None,
    ) -> None:
        """Write down the results of a phase."""
        study = self._laid()
        self._save(
            replace(
                study,
                learning_rates=learning_rates or study.learning_rates,
                other_learning_rates=other_learning_rates or study.other_learning_rates,
                prediction=prediction or study.prediction,
                selection_seeds=selection_seeds or study.selection_seeds,
                verdict_seeds=verdict_seeds or study.verdict_seeds,
                timed_steps=timed_steps or study.timed_steps,
                kept_runs=kept_runs or study.kept_runs,
                cells=cells or study.cells,
            )
        )

    def enter(self, phase: str) -> None:
        """Begin a phase: time from now on is counted for it."""
        self.write()
        self._phase, self._runs = phase, 0

    def ran(self) -> None:
        """Count a run of this phase that ended, or that was already done."""
        self._runs += 1

    def beat(self) -> None:
        """Write the spent time if the last write is long enough ago."""
        if self.clock is not None and self.clock.elapsed - self.spent_seconds > BEAT_SECONDS:
            self.write()

    def write(self) -> None:
        """Write the time spent so far.

        Raises: UserError where the folder cannot be written.
        """
        if self.spend() is not None:
            self._save(self._laid())

    def spend(self) -> RunningStudy | None:
        """Count the time spent so far, without writing; None where no study has started."""
        if self.study is None or self.clock is None:
            return None
        now = self.clock.elapsed
        before = self._phases.get(self._phase)
        seconds = (before.seconds if before else 0.0) + now - self.spent_seconds
        self._phases[self._phase] = Phase(name=self._phase, seconds=seconds, runs=self._runs)
        self.spent_seconds = now
        phases = tuple(self._phases.values())
        self.study = replace(self.study, elapsed_seconds=now, phase=self._phase, phases=phases, launch=self.launch())
        return self.study

    def _laid(self) -> RunningStudy:
        assert self.study is not None, "the study is not laid yet"
        return self.study

    def _save(self, study: RunningStudy) -> None:
        self.study = study
        if self.path is not None:
            write(self.path, study)


@dataclass(frozen=True)
class Counting:
    """Counts a study's runs in its notebook, and passes on what happens."""

    notebook: Notebook
    listener: Listener

    def moved(self, event: Moved) -> None:
        """A running task moved."""
        self.notebook.beat()
        self.listener.moved(event)

    def ended(self, task: Task, run: Run) -> None:
        """A task ended, or was found done."""
        self.notebook.ran()
        self.notebook.beat()
        self.listener.ended(task, run)


def open_notebook(out: Path) -> Notebook | Study:
    """The notebook of a folder, new or from an earlier start; the study itself where it is finished."""
    path = out / STUDY_FILE
    if not path.exists():
        return Notebook(path)
    study = read_study(path)
    return study if isinstance(study, Study) else Notebook(path, study)


def status(out: Path) -> StudyStatus:
    """The progress of the study in a folder. A study runs while its folder is locked.

    Raises: UserError where the folder holds no study.
    """
    file = out / STUDY_FILE
    if not file.exists():
        raise UserError(f"{out} holds no study", hint="name the folder of a study", field="out")
    study, running = read_study(file), in_use(out)
    done = isinstance(study, Study)
    ago = max(0.0, time.time() - file.stat().st_mtime)
    planned = len(study.frozen.layout.cells)
    cells = study.cells or CellCounts(planned=planned, finished=0, diverged=0)
    runs = [run for path in out.glob("runs/*/run.json") if not isinstance(run := try_read(path, Run), Fault)]
    return StudyStatus(
        out=str(out),
        status="done" if done else "running" if running else "stopped",
        written_seconds_ago=ago,
        phase=None if done else study.phase,
        phases=study.phases,
        cells_planned=planned,
        cells_finished=cells.finished,
        cells_diverged=cells.diverged,
        runs_finished=sum(run.finished for run in runs),
        elapsed_seconds=study.elapsed_seconds + (ago if running and not done else 0.0),
        report=study.report if done else None,
    )
