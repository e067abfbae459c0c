"""Studies whose law is wrong by a known amount, and how much worse than the best the models are that they send."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sparsedial.law.law import Law
from sparsedial.records.law import HeldOut
from sparsedial.records.quantities import Family, family_of
from sparsedial.records.study import VerdictSeeds
from sparsedial.runs.simulated import World
from sparsedial.shape.counts import training_flops_per_token
from sparsedial.shape.shape import Shape
from sparsedial.sweep.cells import Cells
from sparsedial.sweep.grid import train_grid
from sparsedial.sweep.judge import Contest, Judged, Named, contest, judge, name_rivals
from sparsedial.sweep.lab import Lab
from sparsedial.sweep.rates import RatesBy
from sparsedial.sweep.rivals import Rivals, StepKind, candidates
from sparsedial.sweep.scan import scan_rates
from tests.sweep.simulation import LAW, WORLD, asked, bench, layout_of, true_law, world_of

FAMILIES: tuple[Family, Family] = ("dense", "sparse")
WIDTHS = 24.0, 48.0  # two rungs at the largest budget of a study of ten minutes
LAWS = tuple(true_law(a=40 * 1.125**step) for step in range(10))  # the best sizes lie elsewhere between the rungs
CURRENCIES = ("flops", "seconds")
REFERENCE: dict[Family, tuple[float, float]] = {"dense": (0.01, 0.03)}  # as dense came out in four reference studies
EQUAL = replace(WORLD, loss=lambda shape, tokens: 1.3, rate_penalty=0.0)
CHECK = HeldOut(
    runs=9,
    budgets_flops=(1e12,),
    rmse_log_loss=0.01,
    median_relative_error=0.01,
    max_relative_error=0.03,
    baselines={"last_budget_shape_kept": 0.07, "linear_in_log_compute": 0.02},
    law_on_the_same=0.01,
    regret_of_predicted_best=0.0,
)


def wrong_world(errors: Mapping[Family, tuple[float, float]], law: Law = LAW) -> World:
    """A world whose losses at the largest budget are above the law by shares that change with width.

    The shares at the two WIDTHS are given for each family. They fall to 0 at the budget below.
    """
    below, top = layout_of(asked()).budgets[-2:]

    @functools.cache
    def loss(shape: Shape, tokens: int) -> float:
        low, high = errors.get(family_of(shape.experts), (0.0, 0.0))
        wide = math.log(shape.d_model / WIDTHS[0]) / math.log(WIDTHS[1] / WIDTHS[0])
        spent = training_flops_per_token(shape, shape.context) * tokens
        late = min(max(math.log(spent / below) / math.log(top / below), 0.0), 1.0)
        return law.loss(**law.variables(shape, tokens)) * (1 + late * max(low + (high - low) * wide, 0.0))

    return replace(world_of(law), loss=loss)


@dataclass(frozen=True)
class Outcome:
    """What a simulated study sent and found, by currency; held against what is true of its world."""

    regret: dict[str, dict[Family, float]]  # nats by which the model sent is above the family's best candidate
    holds: dict[str, bool]  # whether the interval holds the true gap of the models sent
    winner: dict[str, str]
    contest: Contest


@dataclass(frozen=True)
class Ready:
    """A study with noise of its own whose grid is trained, so that its rivals may be chosen in several ways."""

    world: World
    lab: Lab
    rates: RatesBy
    cells: Cells
    named: Named


def ready(world: World, seed: int, law: Law) -> Ready:
    """A study up to the naming of its rivals."""
    lab = bench(world, seed=seed).lab
    rates: RatesBy = {"adamw": scan_rates(lab)}
    cells = train_grid(lab, rates["adamw"].model, lab.layout.budgets, {})
    return Ready(world, lab, rates, cells, name_rivals(lab, rates, law, cells))


def outcome(at: Ready, law: Law, selection: int, seeds: int = 3) -> Outcome:
    """The end of a study whose rivals are chosen with so many seeds."""
    lab, rates, cells, named, world = at.lab, at.rates, at.cells, at.named, at.world
    chosen = contest(lab, rates, law, cells, named, VerdictSeeds(flops=selection, seconds=selection))
    judged = judge(lab, rates, law, chosen, VerdictSeeds(flops=seeds, seconds=seeds))
    layout, top = lab.layout, lab.layout.budgets[-1]

    def expected(shape: Shape, steps: int) -> float:
        rate = rates["adamw"].model.at(shape, steps * layout.tokens_per_step)
        return world.expected_loss(shape, lab.job(shape, steps, layout.batch, rate, 0).recipe)

    def regret(sent: Rivals, options: Mapping[Family, Mapping[Shape, int]]) -> dict[Family, float]:
        return {
            rival.family: expected(rival.shape, rival.steps)
            - min(expected(shape, steps) for shape, steps in options[rival.family].items())
            for rival in sent.both()
        }

    at_flops = {
        family: {shape: layout.steps_for(shape, top) for shape in candidates(layout, cells, family)}
        for family in FAMILIES
    }
    plan = chosen.seconds
    at_seconds = {
        family: {
            shape: round(plan.budget_seconds / plan.step_seconds[StepKind(shape, "adamw")])
            for shape in named.timing.listed[family]
        }
        for family in FAMILIES
    }
    return Outcome(
        regret={"flops": regret(chosen.flops, at_flops), "seconds": regret(plan.rivals, at_seconds)},
        holds={currency: _holds(world, judged, currency) for currency in CURRENCIES},
        winner={currency: judged.verdicts.of(currency).winner for currency in CURRENCIES},
        contest=chosen,
    )


def with_law(errors: Mapping[Family, tuple[float, float]], seed: int) -> tuple[World, Law]:
    """A world in which the law is wrong by these shares; the laws take turns."""
    law = LAWS[seed % len(LAWS)]
    return wrong_world(errors, law), law


def _holds(world: World, judged: Judged, currency: str) -> bool:
    pair, gap = getattr(judged, currency), judged.verdicts.of(currency).gap
    dense, sparse = (world.expected_loss(runs[0].shape, runs[0].recipe) for runs in (pair.dense, pair.sparse))
    return gap.low <= dense - sparse <= gap.high
