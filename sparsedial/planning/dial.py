"""The dial: the best shape at every sparsity for one budget."""

from __future__ import annotations

import numpy as np

from sparsedial.errors import UserError
from sparsedial.law.law import Law
from sparsedial.law.literature import Published
from sparsedial.planning.answer import answer_at, on_edges
from sparsedial.planning.budget import Budget, Constraints
from sparsedial.planning.costs import Costs
from sparsedial.planning.planner import Search, least_tokens, search
from sparsedial.planning.refusals import check_reach, nothing_fits
from sparsedial.planning.warnings import warnings
from sparsedial.records.plan import Position, Positions
from sparsedial.shape.counts import active_parameters, total_parameters, training_flops_per_token
from sparsedial.shape.shapes import Shapes


def positions(
    law: Law, shapes: Shapes, budget: Budget, constraints: Constraints, costs: Costs, published: Published | None
) -> Positions:
    """Every sparsity that has an allowed shape, densest first, with its best one.

    Raises: UserError where no shape respects the constraints.
    """
    found = search(law, shapes, budget, constraints, costs, published)
    best = found.best()
    if best is None:
        raise UserError(*nothing_fits(found, budget, least_tokens(law, constraints)))
    check_reach(budget, float(training_flops_per_token(shapes[best], costs.context)) * float(found.tokens[best]))
    ratios = shapes.experts_per_choice
    found_at = [found.best(ratios == ratio) for ratio in np.unique(ratios[found.allowed])]
    indices = [index for index in found_at if index is not None]

    def position(index: int) -> Position:
        bounds = found.binding(index) + on_edges(shapes, index, found) if index == best else []
        return _position(law, found, index, budget, constraints, costs, published, bounds)

    return Positions(
        budget=budget.record(),
        positions=tuple(position(index) for index in indices),
        best=indices.index(best),
        dense=next((number for number, index in enumerate(indices) if not shapes.experts[index]), None),
        machine=costs.record(),
    )


def _position(
    law: Law,
    found: Search,
    index: int,
    budget: Budget,
    constraints: Constraints,
    costs: Costs,
    published: Published | None,
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
        warnings=tuple(warnings(law, published, at.shape, at.tokens, costs, constraints, spent)),
    )
