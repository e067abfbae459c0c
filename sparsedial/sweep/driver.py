"""The driver: the phases of a study in order; each takes the results of the phases before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sparsedial.records.kept import StudySelection
from sparsedial.records.study import TimedSteps
from sparsedial.sweep.afford import affordable_seeds, affordable_selection, affordable_shares
from sparsedial.sweep.cells import Cells, counted
from sparsedial.sweep.findings import Findings
from sparsedial.sweep.grid import train_grid
from sparsedial.sweep.judge import contest, judge, name_rivals
from sparsedial.sweep.kept import AtBudget, cross, crossed_models
from sparsedial.sweep.lab import Lab
from sparsedial.sweep.laws import Fitted, Laws
from sparsedial.sweep.notebook import Counting, Notebook
from sparsedial.sweep.pace import Pace
from sparsedial.sweep.rates import RatesBy
from sparsedial.sweep.scan import scan_rates

FITTED = Fitted()


def conduct(
    lab: Lab,
    notebook: Notebook,
    *,
    seeds: int | None = None,
    form: str | None = None,
    laws: Laws = FITTED,
    say: Callable[[str], None] = lambda phase: None,
) -> Findings:
    """Run all phases: learning rates, the lower budgets, the prediction, the largest budget, the verdict, the shares.

    Each decision is written down before the runs that it must not depend on: the rates before the grid, the prediction
    before the largest budget, the seeds of a selection or a verdict, and the runs on shares of the text, before the
    first of them. `seeds` and `form` are the user's settings; `laws` fits the law of the cells; `say` is called with
    the name of each phase, and where the machine is too slow for the time limit.
    """

    def enter(phase: str) -> None:
        say(phase)
        notebook.enter(phase)

    def report(cells: Cells) -> None:
        notebook.keep(cells=counted(len(lab.layout.cells), cells))

    def note_steps(steps: TimedSteps) -> None:
        notebook.keep(timed_steps=steps)

    study, layout = notebook.study, lab.layout
    assert study is not None, "the study is not laid yet"
    pace = Pace(lab.profile, Counting(notebook, lab.listener), lab.workers)
    lab = replace(lab, listener=pace)
    rates = study.learning_rates
    if rates is None:
        enter("learning rates")
        rates = scan_rates(lab)
        notebook.keep(learning_rates=rates)
    others = study.other_learning_rates
    if others is None:
        others = tuple(scan_rates(lab, optimizer) for optimizer in lab.optimizers[1:])
        notebook.keep(other_learning_rates=others)
    by_optimizer: RatesBy = {scanned.optimizer: scanned for scanned in (rates, *others)}
    pace.warn(lab, layout.budgets, say)

    enter("grid below the largest budget")
    below = train_grid(lab, rates.model, layout.budgets[:-1], {}, report)
    before = laws.forecast(layout, below, form)
    prediction = study.prediction or before.prediction(layout)
    notebook.keep(prediction=prediction)

    pace.warn(lab, layout.budgets[-1:], say)
    enter("largest budget")
    cells = train_grid(lab, rates.model, layout.budgets[-1:], below, report)
    law = laws.of_all(layout, cells, before)

    enter("verdict")
    named = name_rivals(lab, by_optimizer, law.law, cells)
    selection_seeds = study.selection_seeds or affordable_selection(lab, seeds, by_optimizer, law.law, cells, named)
    notebook.keep(selection_seeds=selection_seeds)
    chosen = contest(lab, by_optimizer, law.law, cells, named, selection_seeds)
    verdict_seeds = study.verdict_seeds or affordable_seeds(lab, seeds, chosen)
    notebook.keep(verdict_seeds=verdict_seeds)
    judged = judge(lab, by_optimizer, law.law, chosen, verdict_seeds, study.timed_steps, note_steps)

    kept = None
    if lab.crossing is not None:
        enter("kept shares")
        models = crossed_models(lab, by_optimizer, law.law, cells, chosen.flops)
        kept = _cross_shares(lab, notebook, pace, by_optimizer, models)

    enter("report")
    return Findings(
        rates=rates,
        other_rates=others,
        prediction=prediction,
        cells=cells,
        law=law,
        selection_seeds=selection_seeds,
        verdict_seeds=verdict_seeds,
        judged=judged,
        kept=kept,
    )


def _cross_shares(lab: Lab, notebook: Notebook, pace: Pace, rates: RatesBy, models: AtBudget) -> StudySelection:
    """Train and compare these models on shares of the text, as many of them as there is time for."""
    study = notebook.study
    assert study is not None
    kept_runs = study.kept_runs or affordable_shares(lab, rates, models, pace.slowdown)
    notebook.keep(kept_runs=kept_runs)
    return cross(lab, rates, models, kept_runs)
