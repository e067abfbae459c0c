"""Which runs of a study's folder are cells of its grid, and what the others were for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsedial.records.run import Run
from sparsedial.records.study import REPEAT_SEED, SELECTION_SEED, STUDY_FILE, RunningStudy, Study, read_study

RUNS = "runs"  # of a study's folder
OFF_BUDGET = 0.05  # a run has a whole number of steps, so a cell's FLOPs are not quite its budget
CELL, RATES, TRIALS, CHOICE, VERDICTS, SHARES = (
    "cell", "learning rates", "timing", "the choice of a verdict's models", "verdicts", "shares of the text",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class GridRuns:
    """The cells among runs, and how many runs had another purpose, by purpose."""

    cells: Sequence[Run]
    others: Counter[str]

    @property
    def note(self) -> str | None:
        """What was left out, in words."""
        if not self.others:
            return None
        each = ", ".join(f"{count} of {purpose}" for purpose, count in self.others.most_common())
        return f"of the study's runs {self.others.total()} are no cells of its grid and are left out: {each}"


def study_beside(runs: Path) -> Study | RunningStudy | None:
    """The study whose folder of runs this is.

    Raises: UserError as `read_study`.
    """
    whole = runs.resolve()
    file = whole.parent / STUDY_FILE
    return read_study(file) if whole.name == RUNS and file.exists() else None


def grid_runs(study: Study | RunningStudy, runs: Sequence[Run]) -> GridRuns:
    """The runs of the grid; a cell of several seeds has as many."""
    purposes = [_purpose(study, run) for run in runs]
    cells = [run for run, purpose in zip(runs, purposes, strict=True) if purpose == CELL]
    return GridRuns(cells=cells, others=Counter(purpose for purpose in purposes if purpose != CELL))


def _purpose(study: Study | RunningStudy, run: Run) -> str:
    """What a run was for. Seeds tell it, and of the first one what was trained."""
    inputs, beyond = study.frozen.inputs, run.recipe.seed - study.frozen.inputs.seed
    if run.text_digest != inputs.text:
        return SHARES
    if beyond > SELECTION_SEED:
        return CHOICE
    if beyond >= REPEAT_SEED:
        return CELL
    if beyond:
        return VERDICTS
    layout, rate = study.frozen.layout, run.recipe.learning_rate
    known = (study.learning_rates, *(study.other_learning_rates or ()))
    rates = next((one for one in known if one is not None and one.optimizer == run.optimizer), None)
    if rates is None:
        return RATES
    on_budget = any(abs(run.flops / budget - 1) < OFF_BUDGET for budget in layout.budgets)
    if on_budget and rate == rates.model.at(run.shape, run.tokens) and run.optimizer == layout.optimizers[0]:
        return CELL
    scanned = {(scan.d_model, scan.experts, scan.tokens, each) for scan in rates.scans for each, _ in scan.points}
    return RATES if (run.shape.d_model, run.shape.experts, run.tokens, rate) in scanned else TRIALS
