"""A study's record with real-looking numbers, from a simulated study: for tests of the pictures and the page only."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec.structs import replace

from sparsedial.law.check import held_out_check
from sparsedial.law.choose import select
from sparsedial.law.law import Law
from sparsedial.records.grid import CellRow, LearningRates
from sparsedial.records.kept import StudySelection
from sparsedial.records.law import Comparison, FormTrial
from sparsedial.records.plan import NearOptimal
from sparsedial.records.probes import ProbeKind, ProbeScore, ProbeScores
from sparsedial.records.quantities import Interval
from sparsedial.records.study import CellCounts, RunningStudy, Study
from sparsedial.runs.simulated import World
from sparsedial.shape.shape import Shape
from sparsedial.sweep.best import best_model
from sparsedial.sweep.cells import Cells, law_rows
from sparsedial.sweep.driver import conduct
from sparsedial.sweep.findings import NO_SPREAD, Findings, finished_study, plan_at_top
from sparsedial.sweep.lab import Lab
from sparsedial.sweep.laws import Forecast, StudyLaw
from sparsedial.sweep.layout import Layout
from sparsedial.sweep.verdict import undecided
from tests.sweep.shares import Worth, crossed_in
from tests.sweep.simulation import Known, asked, bench, true_law, true_seconds, world_of

EXPERTS = (0, 4, 8, 16, 32)
LIMIT_SECONDS = 4000.0
REFUSED = "only 2 budgets: at least 3 are needed"
NO_LAW = f"no law could be fitted: {REFUSED}"
COMPARED = Comparison(
    rule="each budget in turn",
    forms={
        "chinchilla_sparsity": FormTrial(rms_log_error=0.0061, refused=None),
        "clark_saturating": FormTrial(rms_log_error=0.0068, refused=None),
        "abnar": FormTrial(rms_log_error=None, refused="too few runs"),
    },
    taken="the least error",
)


@dataclass(frozen=True)
class Drawn(Known):
    """The true law with a bootstrap's spread, checked on the largest budget."""

    def forecast(self, layout: Layout, below: Cells, wanted: str | None) -> Forecast:
        """The law itself, as if forms had been compared."""
        return replace_comparison(super().forecast(layout, below, wanted))

    def of_all(self, layout: Layout, cells: Cells, before: Forecast) -> StudyLaw:
        """The law itself, with the check."""
        rows = law_rows(layout, cells)
        top = rows["flops"] == layout.budgets[-1]
        ranges = {name: (float(rows[name].min()), float(rows[name].max())) for name in ("tokens", "flops")}
        held_out = held_out_check(select(rows, ~top), select(rows, top), self.law)
        law = replace(self.law, held_out=held_out, fitted_range=ranges, runs=len(top), compared=COMPARED)
        return StudyLaw(law=law, refused=None, forecast=before)


def replace_comparison(forecast: Forecast) -> Forecast:
    """A forecast that says what it was compared with."""
    return Forecast(form=forecast.form, comparison=COMPARED, law=forecast.law)


def spread_law() -> Law:
    """A law of sparsity with samples around it."""
    law = true_law(mu=0.09)
    random = np.random.default_rng(0)
    values = np.array([law.coefficients[name] for name in law.as_form.coefficients])
    samples = values * (1 + 0.004 * random.normal(size=(200, len(values))))
    spans = np.quantile(samples, [0.05, 0.95], axis=0).T
    return replace(
        law,
        samples=tuple(map(tuple, samples.tolist())),
        intervals={name: (low, high) for name, (low, high) in zip(law.coefficients, spans.tolist(), strict=True)},
        undetermined=("e",),
    )


def known_probes(bits: Mapping[ProbeKind, float]) -> ProbeScores:
    """Scores of two levels of each kind: the first is known, the second guessed."""
    return {
        kind: {"easy": _probe_score(mean - 0.1, 0.9), "hard": _probe_score(mean + 0.1, 0.1)}
        for kind, mean in bits.items()
    }


def _probe_score(bits: float, right: float) -> ProbeScore:
    return ProbeScore(
        items=100,
        answer_bits_per_byte=Interval(mean=bits, low=bits - 0.05, high=bits + 0.05),
        exact=Interval(mean=right, low=right - 0.08, high=right + 0.08),
        chance=0.12,
        p_value=0.0 if right > 0.5 else 0.8,
        at_chance=right <= 0.5,
    )


def answers(shape: Shape, loss: float) -> ProbeScores:
    """Sparse models know facts better at equal loss, and read alike, with a scatter over shapes."""
    scatter = math.sin(97 * shape.d_model + shape.experts) / 50
    facts = 0.4 * loss - 0.2 * (shape.experts > 0) + scatter
    return known_probes({"arithmetic": 2.0 + scatter, "facts": facts, "reading": 0.5 * loss + scatter})


def slower_experts(law: Law) -> World:
    """A machine on which a step with experts takes longer than the profile says."""

    def seconds(shape, recipe):
        return true_seconds(shape, recipe) * (1.3 if shape.experts else 1.0)

    return world_of(law, step_seconds=seconds, seed_noise=0.006, probes=answers)


@functools.cache
def finished() -> tuple[Lab, Findings, RunningStudy]:
    """A study of four budgets and five sparsities: sparse wins at equal FLOPs, and is not shown to at equal seconds."""
    law = spread_law()
    sparsities = (0.0, *(1 - 2 / count for count in EXPERTS[1:]))
    question = asked(time=LIMIT_SECONDS, sparsities=sparsities, probes=0.08, optimizers=("adamw",))
    made = bench(slower_experts(law), question=question)
    findings = conduct(made.lab, made.notebook, laws=Drawn(law))
    running = made.notebook.spend()
    assert running is not None
    return made.lab, findings, running


@functools.cache
def study_record() -> Study:
    """The record of that study."""
    lab, findings, running = finished()
    study = finished_study(
        lab,
        running,
        findings,
        plan_at_top(lab, findings),
        versions={"sparsedial": "0.1", "python": "3.11.7"},
        next_command="sparsedial study --time 2h --out runs/bigger",
        report="simulated/report.html",
    )
    return replace(study, selection=known_selection())


@functools.cache
def known_selection() -> StudySelection:
    """The sparse model on half of the text is best, at equal total FLOPs, too; on a quarter sparse gains most."""
    worth: Worth = {(0.5, "sparse"): -0.08, (0.25, "sparse"): -0.05, (0.25, "dense"): 0.04, (1.0, "dense"): 0.03}
    return crossed_in(worth, paid=True, selection_flops=1e10, seed_noise=0.002)


def bare_record() -> Study:
    """The same study with all that may be missing missing."""
    study = study_record()
    nothing = undecided("flops", "fewer than two seeds of each family finished")
    no_law = NearOptimal(sparsity=None, sparsity_reason=NO_LAW)
    verdicts = replace(
        study.verdict,
        **{
            name: replace(nothing, budget=replace(nothing.budget, currency=name))
            for name in ("flops", "seconds", "joules")
        },
    )
    law = replace(
        study.law,
        form=None,
        coefficients={},
        intervals={},
        confidence=None,
        undetermined=(),
        rmse_log_loss=None,
        held_out=None,
        held_out_reason="there is no law to check",
        refused=REFUSED,
    )
    rows = [
        replace(row, held_out=False, predicted_loss=None, predicted_low=None, predicted_high=None, expert_load=None)
        for row in study.cells_table
    ]
    rows[-1] = replace(rows[-1], status="diverged", reason="loss is nan at step 41", loss=None, bits_per_byte=None)
    return replace(
        study,
        best=best_model(finished()[1].cells, nothing, no_law),
        verdict=verdicts,
        law=law,
        crossover=None,
        crossover_reason=NO_LAW,
        near_optimal=no_law,
        binding_constraints=(),
        law_curves=(),
        verdict_runs=(),
        learning_rates=LearningRates(scans=(), model=study.learning_rates.model),
        cells_table=tuple(rows),
        cells=CellCounts(planned=len(rows), finished=len(rows) - 1, diverged=1),
        probes=None,
        selection=None,
        seed_noise=None,
        seed_noise_reason=NO_SPREAD,
    )


def with_cells(study: Study, change: Callable[[CellRow], CellRow]) -> Study:
    """A study with every row of its table of cells changed."""
    return replace(study, cells_table=tuple(change(row) for row in study.cells_table))


def with_verdict(study: Study, currency: str, **changes: Any) -> Study:
    """A study with the verdict of one currency changed."""
    verdict = replace(study.verdict.of(currency), **changes)
    return replace(study, verdict=replace(study.verdict, **{currency: verdict}))


def metered(study: Study) -> Study:
    """A study whose joules were measured: those of the seconds at eleven watts."""

    def powered(row):
        return replace(row, joules=11 * row.seconds)

    study = replace(study, verdict_runs=tuple(powered(row) for row in study.verdict_runs))
    joules = study.verdict.joules
    sides = {side: replace(getattr(joules, side), joules=1200.0) for side in ("sparse", "dense")}
    return with_verdict(with_cells(study, powered), "joules", basis="measured", **sides)
