"""The findings of a study as stored in `study.json`, and its law's plan at the largest budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from sparsedial.law.law import Law
from sparsedial.planning.answer import Answer, Surroundings, plan_of
from sparsedial.planning.budget import Budget, Constraints
from sparsedial.planning.candidates import rungs
from sparsedial.planning.costs import Costs
from sparsedial.planning.crossing import POINTS, race
from sparsedial.planning.fitted import beyond, far_beyond
from sparsedial.planning.ranking import binding_constraints, gap_of, near_optimal
from sparsedial.planning.sampled import winner_of
from sparsedial.planning.warnings import marks
from sparsedial.records.best import BestModel
from sparsedial.records.grid import LearningRates, Prediction, VerdictRow
from sparsedial.records.kept import StudySelection
from sparsedial.records.plan import TOKENIZER_FOLDER, NearOptimal, Plan, PlanOrigin, Race
from sparsedial.records.recipe import OptimizerName
from sparsedial.records.record import plain
from sparsedial.records.study import ProfileSummary, RunningStudy, Study, VerdictSeeds
from sparsedial.shape.shape import Shape
from sparsedial.store import digest
from sparsedial.sweep.best import best_model
from sparsedial.sweep.cells import Cells, counted
from sparsedial.sweep.judge import Judged
from sparsedial.sweep.lab import Lab
from sparsedial.sweep.launched import launched
from sparsedial.sweep.laws import StudyLaw
from sparsedial.sweep.layout import cell_seconds
from sparsedial.sweep.probed import probed
from sparsedial.sweep.rates import RatesBy
from sparsedial.sweep.rivals import candidates, ranked
from sparsedial.sweep.tables import cells_table, law_curves, verdict_rows
from sparsedial.units import OPTIMIZERS, family_name

RECIPE_SOURCE = "this study's scans of learning rates"
NO_SPREAD = "no model of a verdict was trained to its end with two seeds"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The cells of a study and the conclusions from them."""

    rates: LearningRates
    other_rates: tuple[LearningRates, ...] = ()  # of the optimizers beside the grid's
    prediction: Prediction | None
    cells: Cells
    law: StudyLaw
    selection_seeds: VerdictSeeds
    verdict_seeds: VerdictSeeds
    judged: Judged
    kept: StudySelection | None = None  # None for a study without a selection

    @property
    def by_optimizer(self) -> RatesBy:
        """The scans of all optimizers."""
        return {scanned.optimizer: scanned for scanned in (self.rates, *self.other_rates)}


def plan_at_top(lab: Lab, findings: Findings) -> Plan | None:
    """The study's best model at the largest budget, as its law and its limits see it; None without a law.

    Where nothing was measured there, it is the law's own choice.
    """
    law = findings.law.law
    if law is None:
        return None
    layout, budget = lab.layout, lab.layout.budgets[-1]
    shapes = [
        *candidates(layout, findings.cells, "dense"),
        *candidates(layout, findings.cells, "sparse"),
    ]
    answers = ranked(lab, law, shapes, "flops", budget)
    best = _measured_best(findings, answers) or answers[0]
    steps = best.tokens // layout.tokens_per_step
    optimizer = _optimizer_of(findings, best)
    rate = findings.by_optimizer[optimizer].model.at(best.shape, best.tokens)
    plan = plan_of(
        law,
        law.form,
        Budget(currency="flops", value=budget),
        best,
        _beside(lab, law, shapes, answers, best, _by_another(lab.optimizers[0], optimizer)),
        _costs(lab),
        Constraints(serving_positions=lab.context),
        lab.job(best.shape, steps, layout.batch, rate, lab.seed, optimizer).recipe,
        RECIPE_SOURCE,
    )
    origin = PlanOrigin(
        tokenizer=lab.text.tokenizer,
        tokenizer_folder=TOKENIZER_FOLDER,
        text_digest=lab.text.digest,
        context=lab.context,
        law_digest=digest(plain(law)),
        profile_digest=lab.profile.digest,
        token_share=lab.tokens and lab.tokens.share,
    )
    return replace(plan, origin=origin, origin_reason=None)


def _measured_best(findings: Findings, answers: Sequence[Answer]) -> Answer | None:
    """What the law says of the model that was measured to be the best; None where that was at another budget."""
    best = best_of_study(findings, None)
    return next((one for one in answers if best and (one.shape, one.tokens) == (best.shape, best.tokens)), None)


def _optimizer_of(findings: Findings, answer: Answer) -> OptimizerName:
    """The optimizer with which the best model was trained; the grid's where that is another model."""
    best = best_of_study(findings, None)
    same = best is not None and (best.shape, best.tokens) == (answer.shape, answer.tokens)
    return best.optimizer if best is not None and same else findings.rates.optimizer


def _by_another(grid: OptimizerName, optimizer: OptimizerName) -> list[str]:
    """A mark where the plan's optimizer is not the one of the runs that the law was fitted to."""
    if optimizer == grid:
        return []
    return [
        f"to be trained with {OPTIMIZERS[optimizer]}, while the law and its loss are of runs with {OPTIMIZERS[grid]}"
    ]


def _choice_of_law(law: Answer, best: Answer) -> list[str]:
    """A mark where the law alone would choose another model than the one that was measured to be the best."""
    if law is best:
        return []
    return [
        f"measured to be the best; the law would choose {family_name(law.shape.experts)}, width {law.shape.d_model},"
        f" with a predicted loss of {law.predicted.mean:.3f} against {best.predicted.mean:.3f}"
    ]


def _beside(
    lab: Lab, law: Law, shapes: Sequence[Shape], answers: Sequence[Answer], best: Answer, noted: Sequence[str]
) -> Surroundings:
    """The context of the best answer: its dense rival, the crossover in seconds, its limits, what was `noted`."""
    crossing = crossover(lab, law)
    dense, sparse = (next(answer for answer in answers if bool(answer.shape.experts) == family) for family in (0, 1))
    gap = gap_of(law, dense, sparse)
    return Surroundings(
        rival=dense,
        rival_reason=None,
        crossover=crossing.crossover,
        crossover_reason=crossing.crossover_reason,
        bounds=binding_constraints(best.shape, shapes),
        band=near_optimal(answers, law),
        others=(),  # published laws are about other text and far larger models
        warnings=beyond(law, best.shape, best.tokens, lab.context),
        candidates=len(shapes),
        marks=[
            *_choice_of_law(answers[0], best),
            *noted,
            *marks(law, best.shape, best.tokens, lab.context, best.predicted),
        ],
        extrapolation=far_beyond(law, best.shape, best.tokens, lab.context),
        gap=gap,
        winner=winner_of(gap, dense.predicted.mean),
    )


def crossover(lab: Lab, law: Law) -> Race:
    """The budget in seconds from which sparse wins, searched up to a factor of ten around the studied budgets.

    The shapes are those that `plan` uses with the study's law. With the trained widths alone, a larger budget would
    overtrain the widest dense model, and sparse would seem to win.
    """
    layout = lab.layout
    costs = [cell_seconds(layout, lab.profile, cell) for cell in layout.cells]
    return race(
        law,
        rungs(layout.ladder, layout.experts),
        currency="seconds",
        budgets=np.geomspace(min(costs) / 10, max(costs) * 10, POINTS),
        costs=_costs(lab),
    )


def _costs(lab: Lab) -> Costs:
    return Costs(machine=lab.profile, batch=lab.layout.batch, context=lab.context)


def best_of_study(findings: Findings, plan: Plan | None) -> BestModel | None:
    """The study's answer to its question; None where no model was trained to its end."""
    return best_model(findings.cells, findings.judged.verdicts.flops, _near_optimal(findings, plan))


def _near_optimal(findings: Findings, plan: Plan | None) -> NearOptimal:
    if plan is not None:
        return plan.near_optimal
    return NearOptimal(sparsity=None, sparsity_reason=_no_law(findings))


def _no_law(findings: Findings) -> str:
    return f"no law could be fitted: {findings.law.refused}"


def finished_study(
    lab: Lab,
    running: RunningStudy,
    findings: Findings,
    plan: Plan | None,
    *,
    versions: dict[str, str],
    next_command: str,
    report: str,
) -> Study:
    """The whole record of a finished study."""
    layout, verdicts = lab.layout, findings.judged.verdicts
    rows = verdict_rows(lab.archive, findings.judged)
    noise = seed_noise(rows)
    return Study(
        best=best_of_study(findings, plan),
        frozen=running.frozen,
        learning_rates=findings.rates,
        other_learning_rates=findings.other_rates,
        elapsed_seconds=running.elapsed_seconds,
        phase=running.phase,
        phases=running.phases,
        prediction=findings.prediction,
        cells=counted(len(layout.cells), findings.cells),
        selection_seeds=findings.selection_seeds,
        verdict_seeds=findings.verdict_seeds,
        timed_steps=running.timed_steps,
        budgets_flops=layout.budgets,
        sparsities=tuple(1 - layout.ladder.top_k / count if count else 0.0 for count in layout.experts),
        text=lab.text,
        machine=lab.profile.machine,
        law=findings.law.summary(),
        verdict=verdicts,
        near_optimal=_near_optimal(findings, plan),
        binding_constraints=plan.binding_constraints if plan else (),
        crossover=plan.crossover if plan else None,
        crossover_reason=plan.crossover_reason if plan else _no_law(findings),
        cells_table=cells_table(layout, findings.cells, findings.rates.model, findings.law.forecast.law),
        verdict_runs=rows,
        law_curves=law_curves(layout, findings.cells, findings.law.law),
        profile=ProfileSummary(
            median_relative_error=lab.profile.median_relative_error,
            max_relative_error=lab.profile.max_relative_error,
            watts=lab.profile.watts,
            watts_source=lab.profile.watts_source,
            metered=lab.profile.metered,
        ),
        seed_noise=noise,
        seed_noise_reason=NO_SPREAD if noise is None else None,
        probes=probed(findings.cells, running.frozen.inputs),
        token_selection=lab.tokens,
        selection=findings.kept,
        launch=launched(lab, findings.rates.model, findings.cells, running),
        versions=versions,
        next=next_command,
        wall_seconds=lab.clock.elapsed,
        report=report,
    )


def seed_noise(rows: Sequence[VerdictRow]) -> float | None:
    """Standard deviation of test loss between seeds, pooled over the rivals; None where no rival has two runs.

    Rivals are weighted by degrees of freedom: a rival with n runs counts n - 1 times. A run that serves two currencies
    counts once.
    """
    groups: dict[tuple[int, int, int, str], list[float]] = {}
    for row in {row.hash: row for row in rows}.values():
        if row.test_loss is not None:
            groups.setdefault((row.d_model, row.experts, row.tokens, row.optimizer), []).append(row.test_loss)
    freedom = sum(len(losses) - 1 for losses in groups.values())
    if not freedom:
        return None
    squares = sum(float(np.sum((np.array(losses) - np.mean(losses)) ** 2)) for losses in groups.values())
    return math.sqrt(squares / freedom)
