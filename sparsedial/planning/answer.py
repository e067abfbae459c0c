"""The answer to a budget: the best shape with its error, its rival, its bounds, and what other laws say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from msgspec.structs import replace

from sparsedial.errors import UserError
from sparsedial.law.fence import fence
from sparsedial.law.law import Law
from sparsedial.planning.budget import Budget, Constraints
from sparsedial.planning.costs import Costs
from sparsedial.planning.crossing import around, race
from sparsedial.planning.fitted import far_beyond
from sparsedial.planning.others import other_laws
from sparsedial.planning.planner import DEVICE_MEMORY, Search, least_tokens, search
from sparsedial.planning.refusals import check_reach, nothing_fits
from sparsedial.planning.sampled import gap_to_dense, sampled_optimum, winner_of
from sparsedial.planning.warnings import marks, no_better_than_a_guess, warnings
from sparsedial.records.plan import Crossover, NearOptimal, OtherLaw, Plan, PredictedLoss, Rival, TrainingCosts, Winner
from sparsedial.records.quantities import Interval, Span, Sparsity
from sparsedial.records.recipe import Recipe
from sparsedial.shape.counts import active_parameters, total_parameters, training_flops_per_token
from sparsedial.shape.shape import Shape
from sparsedial.shape.shapes import Shapes

LING_RECIPE = "Ling 2025 (arXiv 2507.17702), fitted on 3e17 to 3e20 FLOPs: a start for a scan"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A shape with the tokens that a budget buys it, and what the law says of them."""

    shape: Shape
    tokens: int
    predicted: PredictedLoss
    cost: float  # in the budget's currency


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a plan says besides its answer: rival, crossover, bounds, how wide the optimum is, notes."""

    rival: Answer | None
    rival_reason: str | None
    crossover: Crossover | None
    crossover_reason: str | None
    bounds: Sequence[str]
    band: NearOptimal
    others: Sequence[OtherLaw]
    warnings: Sequence[str]
    candidates: int
    marks: Sequence[str] = ()
    extrapolation: Mapping[str, float] = field(default_factory=dict)
    gap: Interval | None = None
    gap_reason: str | None = None
    winner: Winner | None = None


def plan_of(
    law: Law,
    name: str,
    budget: Budget,
    best: Answer,
    beside: Surroundings,
    costs: Costs,
    constraints: Constraints,
    recipe: Recipe,
    recipe_source: str,
) -> Plan:
    """An answer as the record of a `plan.json`."""
    shape = best.shape

    def costing(one: Answer) -> TrainingCosts:
        return costs.of_training(one.shape, one.tokens, constraints.serving_positions, constraints.serving_sequences)

    return Plan(
        budget=budget.record(),
        law=name,
        law_source=law.source,
        shape=shape,
        tokens=best.tokens,
        total_parameters=total_parameters(shape),
        active_parameters=active_parameters(shape),
        sparsity=Sparsity.of(shape),
        predicted_loss=best.predicted,
        costs=costing(best),
        machine=costs.record(),
        dense_rival=None if beside.rival is None else _rival(beside.rival, costing(beside.rival)),
        dense_rival_reason=beside.rival_reason,
        crossover=beside.crossover,
        crossover_reason=beside.crossover_reason,
        binding_constraints=tuple(beside.bounds),
        near_optimal=beside.band,
        tokens_per_total_parameter=best.tokens / total_parameters(shape),
        other_laws=tuple(beside.others),
        warnings=tuple(beside.warnings),
        candidates=beside.candidates,
        recipe=recipe,
        recipe_source=recipe_source,
        marks=tuple(beside.marks),
        extrapolation=dict(beside.extrapolation),
        gap_to_dense=beside.gap,
        gap_to_dense_reason=beside.gap_reason,
        winner=beside.winner,
        cost=best.cost,
        best_sparsity_reason=fence(law).no_best
        or constraints.only_sparsity
        or no_better_than_a_guess(shape, best.predicted.mean),
    )


def _rival(rival: Answer, costs: TrainingCosts) -> Rival:
    return Rival(
        shape=rival.shape,
        tokens=rival.tokens,
        total_parameters=total_parameters(rival.shape),
        cost=rival.cost,
        predicted_loss=rival.predicted,
        costs=costs,
    )


def answer(
    law: Law,
    name: str,
    shapes: Shapes,
    budget: Budget,
    constraints: Constraints,
    costs: Costs,
    misleads: str | None = None,
    others: bool = True,
) -> Plan:
    """The plan for a budget: the best of many shapes by a law; `misleads` says where a published one does.

    Raises: UserError where no candidate respects the constraints, or the law cannot be asked.
    """
    found = search(law, shapes, budget, constraints, costs)
    index = found.best()
    if index is None:
        raise UserError(*nothing_fits(found, budget, least_tokens(law, constraints), costs))
    best = answer_at(law, found, index)
    flops = float(training_flops_per_token(best.shape, costs.context)) * best.tokens
    check_reach(budget, flops)
    rival = found.best(shapes.experts == 0)
    cross, why = _crossing(law, shapes, budget, constraints, costs)
    gap, no_gap, winner = decided(law, found, budget)
    beside = Surroundings(
        rival=None if rival is None else answer_at(law, found, rival),
        rival_reason=None if rival is not None else _no_rival(law),
        crossover=cross,
        crossover_reason=why,
        bounds=bounds_of(found, index, costs),
        band=replace(
            band_of(found.shapes.pick(near := found.near(index)), found.tokens[near]),
            sampled=sampled_optimum(law, found),
        ),
        others=other_laws(name, shapes, best.shape, flops, budget, constraints, costs) if others else (),
        warnings=warnings(
            law, misleads, best.shape, best.tokens, costs, constraints, found.spent(index, budget)
        ),
        candidates=len(shapes),
        marks=marks(law, best.shape, best.tokens, costs.context, best.predicted),
        extrapolation=far_beyond(law, best.shape, best.tokens, costs.context),
        gap=gap,
        gap_reason=no_gap,
        winner=winner,
    )  # fmt: skip
    recipe = first_recipe(best.shape, best.tokens, costs.context)
    return plan_of(law, name, budget, best, beside, costs, constraints, recipe, LING_RECIPE)


def answer_at(law: Law, found: Search, index: int) -> Answer:
    """One candidate of a search as an answer."""
    shape, tokens = found.shapes[index], round(float(found.tokens[index]))
    loss = predicted(law, shape, float(found.seen[index]), float(found.loss[index]))
    return Answer(shape=shape, tokens=tokens, predicted=loss, cost=float(found.cost[index]))


def predicted(law: Law, shape: Shape, tokens: float, loss: float) -> PredictedLoss:
    """A loss with its interval, where the law has one."""
    if not law.samples:
        reason = (
            "the law was fitted without samples (bootstrap 0), so its uncertainty is not known"
            if law.source == "ours"
            else "the law was published without errors of its coefficients, so none are invented"
        )
        return PredictedLoss(mean=loss, low=None, high=None, interval_basis=None, interval_reason=reason)
    low, high = law.interval(**law.variables(shape, tokens))
    return with_bootstrap(loss, float(low[0]), float(high[0]))


def with_bootstrap(loss: float, low: float, high: float) -> PredictedLoss:
    """A loss whose interval comes from the law's samples."""
    return PredictedLoss(mean=loss, low=low, high=high, interval_basis="bootstrap", interval_reason=None)


def decided(law: Law, found: Search, budget: Budget) -> tuple[Interval | None, str | None, Winner | None]:
    """The gap of the best dense to the best sparse candidates, or why there is none, and which family it favours."""
    if budget.value is None:
        return None, "a target loss was given, which both families reach", None
    dense = found.shapes.experts == 0
    sides = [found.first(found.allowed & side) for side in (dense, ~dense)]
    if not sides[0].any() or not sides[1].any():
        return None, _no_rival(law) if not sides[0].any() else _no_sparse(law), None
    gap = gap_to_dense(law, found, *sides)
    return gap, None, winner_of(gap, float(found.loss[sides[0]].min()))


def bounds_of(found: Search, index: int, costs: Costs) -> list[str]:
    """What limits an answer: constraints without which a better one would be allowed, and the ends of the search."""
    lines: list[str] = []
    for name in found.binding(index):
        if name in found.why:
            name = f"{name}: {found.why[name]}"
        elif name.startswith(DEVICE_MEMORY) and (better := found.without(name, index)) is not None:
            count = costs.devices_for(found.shapes[better])
            needs = "no number of such devices" if count is None else f"needs {count:,} such devices"
            name = f"{name}: the best shape without this limit {needs}"
        lines.append(name)
    return lines + on_edges(found.shapes, index, found)


def _no_rival(law: Law) -> str:
    return fence(law).no_dense or "no dense shape respects the constraints"


def _no_sparse(law: Law) -> str:
    return fence(law).no_sparse or "no sparse shape respects the constraints"


def _crossing(
    law: Law, shapes: Shapes, budget: Budget, constraints: Constraints, costs: Costs
) -> tuple[Crossover | None, str | None]:
    if budget.value is None:
        return None, "the crossover is a budget, and a target loss was given instead"
    found = race(
        law,
        shapes,
        currency=budget.currency,
        budgets=around(budget.value),
        costs=costs,
        constraints=constraints,
    )
    return found.crossover, found.crossover_reason


def on_edges(shapes: Shapes, best: int, found: Search) -> list[str]:
    """The ends of the search space that the best shape is at."""
    edges: list[str] = []
    values = {"experts/top_k": shapes.experts_per_choice, "experts": shapes.experts, "d_model": shapes.d_model}
    reachable = found.allowed & ((shapes.experts > 0) == (shapes.experts[best] > 0))
    for name, column in values.items():
        if name != "d_model" and shapes.experts[best] == 0:
            continue
        if column[best] == column.max():
            edges.append(f"{name}={column[best]:g}: the most that was considered")
        elif column[best] == column[reachable].min() and name == "d_model":
            edges.append(f"{name}={column[best]:g}: the least that was considered")
    return edges


def band_of(shapes: Shapes, tokens: Any) -> NearOptimal:
    """The ranges of near-optimal shapes and of their tokens."""

    def span(values: Any) -> Span:
        return float(np.min(values)), float(np.max(values))

    return NearOptimal(
        sparsity=span(shapes.sparsity),
        total_parameters=span(total_parameters(shapes)),  # type: ignore[arg-type]
        active_parameters=span(active_parameters(shapes)),  # type: ignore[arg-type]
        tokens=span(tokens),
    )


def first_recipe(shape: Shape, tokens: float, context: int) -> Recipe:
    """A first recipe by Ling's rules for sparse models, to be checked by a scan.

    Source: Ling 2025 (arXiv 2507.17702): lr = 1.1576 C^-0.1529, batch = 0.0694 C^0.3644 tokens, C in 3e17..3e20
    """
    flops = training_flops_per_token(shape, context) * tokens
    batch = max(1, round(0.0694 * flops**0.3644 / context))
    return Recipe(
        learning_rate=float(f"{1.1576 * flops**-0.1529:.3g}"),
        batch=batch,
        context=context,
        steps=max(1, round(tokens / (batch * context))),
    )
