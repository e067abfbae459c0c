"""Whether a study keeps its time: the seconds of its first runs, beside those that the machine's profile predicts."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sparsedial.machine.profile import Profile
from sparsedial.records.grid import PhaseSeconds
from sparsedial.records.run import Run
from sparsedial.runs.executor import Moved, Task
from sparsedial.sweep.budgets import BESIDE_FACTOR, REPORT_SECONDS, grid_cost, predict_phases
from sparsedial.sweep.expect import OVERRUN_SHARE
from sparsedial.sweep.lab import Lab, Listener
from sparsedial.units import count_words, human_seconds

SLOW = 1.1  # a machine slower by less than this is as it was measured


@dataclass
class Pace:
    """Compares the seconds of a study's runs with the profile's, and passes on what happens."""

    profile: Profile
    listener: Listener
    workers: int
    ratios: list[float] = field(
        default_factory=list[float]
    )  # measured over predicted seconds, of runs by its optimizer
    warned: bool = False

    def moved(self, event: Moved) -> None:
        """A running task moved."""
        self.listener.moved(event)

    def ended(self, task: Task, run: Run) -> None:
        """A task ended, or was found done."""
        recipe = run.recipe
        step = float(self.profile.step_seconds(run.shape, recipe.batch, recipe.context).value)
        if run.finished and run.seconds > 0 and recipe.optimizer == self.profile.optimizer:
            self.ratios.append(run.seconds / (step * recipe.steps) / (1.0 if run.alone else self._beside(step)))
        self.listener.ended(task, run)

    @property
    def slowdown(self) -> float:
        """How many times slower the machine is than when it was measured; 1 before the first run ended."""
        return statistics.median(self.ratios) if self.ratios else 1.0

    def _beside(self, step_seconds: float) -> float:
        """How many times longer the step of one of several runs is expected to take."""
        workers = self.workers
        return BESIDE_FACTOR * workers / self.profile.speedup(workers, step_seconds) if workers > 1 else 1.0

    def warn(self, lab: Lab, budgets: Iterable[float], say: Callable[[str], None]) -> None:
        """Say once what a slower machine means for the time limit, where cells of these budgets are still to train.

        The runs so far are forgotten: what they said is old by the next time.
        """
        words = None if self.warned else _late_words(lab, self, budgets)
        if words:
            say(words)
            self.warned = True
        self.ratios.clear()


def _late_words(lab: Lab, pace: Pace, budgets: Iterable[float]) -> str | None:
    """What a slower machine means for the time limit, where cells of these budgets are still to train; None where none.

    The same of fewer workers than the grid was planned with. The seeds of a verdict are fitted to the remaining time;
    the cells of the grid are not.
    """
    planned, slowdown, limit = lab.layout.predicted_seconds, pace.slowdown, lab.clock.limit_seconds
    why = None if planned is None else _what_is_slower(lab, slowdown, planned)
    if planned is None or why is None:
        return None
    grid = sum(
        lab.layout.repeats(cell.budget_flops)
        * grid_cost(lab.layout, lab.profile, cell, lab.probe_tokens).shared(lab.profile, lab.at_once)
        for cell in lab.layout.cells
        if cell.budget_flops in set(budgets)
    )
    ends = lab.clock.elapsed + slowdown * grid + REPORT_SECONDS
    if ends > limit:  # what is not counted here, as timing trials, is up to the tenth by which a study may overrun
        return (
            f"{why}: the limit of {human_seconds(limit)} will probably not hold, since the grid alone takes until"
            f" about {human_seconds(ends)}"
        )
    if ends + slowdown * (planned.verdict + planned.kept_shares) > (1 + OVERRUN_SHARE) * limit:
        shares = ", and shares of the text are left out first" if planned.kept_shares else ""
        return f"{why}: to keep the limit of {human_seconds(limit)}, a verdict gets fewer seeds or is left out{shares}"
    return None


def _what_is_slower(lab: Lab, slowdown: float, planned: PhaseSeconds) -> str | None:
    """The machine, or the workers together, against what the grid was planned with; None where neither is."""
    if slowdown >= SLOW:
        return f"the machine is {slowdown:.2g} times slower than when it was measured"
    now = predict_phases(lab.layout, lab.profile, lab.at_once, lab.probe_tokens)
    fewer = now.grid >= SLOW * planned.grid
    return f"the grid was planned with more than {count_words(lab.at_once, 'worker')}" if fewer else None
