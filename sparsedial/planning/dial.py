"""The dial: the best shape at every sparsity for one budget."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from sparsedial.errors import UserError
from sparsedial.law.fence import fence
from sparsedial.law.law import Law
from sparsedial.planning.answer import answer_at, band_of, bounds_of, decided
from sparsedial.planning.budget import Budget, Constraints
from sparsedial.planning.costs import Costs
from sparsedial.planning.planner import Search, least_tokens, search
from sparsedial.planning.refusals import check_reach, nothing_fits
from sparsedial.planning.sampled import sampled_optimum
from sparsedial.planning.warnings import marks, no_better_than_a_guess, warnings
from sparsedial.records.plan import Position, Positions
from sparsedial.shape.counts import active_parameters, total_parameters, training_flops_per_token
from sparsedial.shape.shapes import Shapes


def positions(
    law: Law, shapes: Shapes, budget: Budget, constraints: Constraints, costs: Costs, misleads: str | None = None
) -> Positions:
    """Every sparsity that has an allowed shape, densest first, with its best one; `misleads` as `answer` takes it.

    Raises: UserError where no shape respects the constraints.
    """
    found = search(law, shapes, budget, constraints, costs)
    best = found.best()
    if best is None:
        raise UserError(*nothing_fits(found, budget, least_tokens(law, constraints), costs))
    check_reach(budget, float(training_flops_per_token(shapes[best], costs.context)) * float(found.tokens[best]))
    ratios = shapes.experts_per_choice
    found_at = [found.best(ratios == ratio) for ratio in np.unique(ratios[found.allowed])]
    indices = [index for index in found_at if index is not None]

    def position(index: int) -> Position:
        bounds = bounds_of(found, index, costs) if index == best else []
        return _position(law, found, index, budget, constraints, costs, misleads, bounds)

    gap, no_gap, winner = decided(law, found, budget)
    near = found.near(best)
    band = band_of(shapes.pick(near), found.tokens[near])
    fenced = fence(law)
    return Positions(
        budget=budget.record(),
        positions=tuple(position(index) for index in indices),
        best=indices.index(best),
        dense=next((number for number, index in enumerate(indices) if not shapes.experts[index]), None),
        gap_to_dense=gap,
        gap_to_dense_reason=no_gap,
        winner=winner,
        machine=costs.record(),
        near_optimal=replace(band, sampled=sampled_optimum(law, found)),
        no_choice_reason=fenced.no_best or no_better_than_a_guess(shapes[best], float(found.loss[best])),
    )


def _position(
    law: Law,
    found: Search,
    index: int,
    budget: Budget,
    constraints: Constraints,
    costs: Costs,
    misleads: str | None,
    bounds: list[str],
) -> Position:
    at = answer_at(law, found, index)
    spent = found.spent(index, budget)
    return Position(
        sparsity=at.shape.sparsity,
        shape=at.shape,
        tokens=at.tokens,
        total_parameters=total_parameters(at.shape),
        active_parameters=active_parameters(at.shape),
        predicted_loss=at.predicted,
        costs=costs.of_training(at.shape, at.tokens, constraints.serving_positions, constraints.serving_sequences),
        binding_constraints=tuple(bounds),
        warnings=tuple(warnings(law, misleads, at.shape, at.tokens, costs, constraints, spent)),
        marks=tuple(marks(law, at.shape, at.tokens, costs.context, at.predicted)),
    )
