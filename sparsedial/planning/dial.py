"""The dial: the best shape at every sparsity for one budget."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsedial.errors import UserError
from sparsedial.law.law import Law
from sparsedial.law.literature import Published
from sparsedial.planning.answer import check_reach, costs_of, nothing_fits, on_edges, predicted, warnings
from sparsedial.planning.budget import Budget, Constraints
from sparsedial.planning.costs import Costs
from sparsedial.planning.planner import least_tokens, search
from sparsedial.shape.counts import active_parameters, total_parameters, training_flops_per_token
from sparsedial.shape.shapes import Shapes


def positions(
    law: Law, shapes: Shapes, budget: Budget, constraints: Constraints, costs: Costs, speaks: Published | None
) -> dict[str, Any]:
    """Every sparsity that has an allowed shape, densest first, with its best one; `best` and `dense` are places there.

    Raises: UserError where no shape respects the constraints.
    """
    found = search(law, shapes, budget, constraints, costs, speaks)
    best = found.best()
    if best is None:
        raise UserError(*nothing_fits(found, budget, least_tokens(law, constraints)))
    check_reach(budget, float(training_flops_per_token(shapes[best], costs.context)) * float(found.tokens[best]))
    ratios = shapes.experts_per_choice
    rows, places = [], []
    for ratio in np.unique(ratios[found.allowed]):
        place = found.best(ratios == ratio)
        assert place is not None
        shape, tokens = shapes[place], round(float(found.tokens[place]))
        places.append(place)
        rows.append(
            {
                "sparsity": shape.sparsity,
                "shape": shape.record(),
                "tokens": tokens,
                "total_parameters": total_parameters(shape),
                "active_parameters": active_parameters(shape),
                "predicted_loss": predicted(law, shape, tokens, float(found.loss[place])),
                "costs": costs_of(shape, tokens, costs, constraints),
                "binding_constraints": found.binding(place) + on_edges(shapes, place, found) if place == best else [],
                "warnings": warnings(law, speaks, shape, tokens, costs, constraints, found.spent(place, budget)),
            }
        )
    dense = next((place for place, row in enumerate(rows) if not row["shape"]["experts"]), None)
    return {
        "budget": {"currency": budget.currency, "value": budget.value, "target_loss": budget.target_loss},
        "positions": rows,
        "best": places.index(best),
        "dense": dense,
        "machine": costs.record(),
    }
