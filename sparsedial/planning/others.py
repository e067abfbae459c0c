"""What the other published laws answer to the same question."""

from __future__ import annotations

from sparsedial.law.literature import LING, PUBLISHED, Published
from sparsedial.planning.budget import Budget, Constraints
from sparsedial.planning.costs import Costs
from sparsedial.planning.fitted import far_beyond
from sparsedial.planning.planner import search
from sparsedial.records.plan import OtherAnswer, OtherLaw
from sparsedial.shape.counts import active_parameters, total_parameters
from sparsedial.shape.shape import Shape
from sparsedial.shape.shapes import Shapes


def other_laws(
    name: str,
    shapes: Shapes,
    chosen: Shape,
    flops: float,
    budget: Budget,
    constraints: Constraints,
    costs: Costs,
) -> list[OtherLaw]:
    """What each other published law answers, and Ling's leverage of the chosen shape."""
    rows = [
        _by(other, shapes, budget, constraints, costs)
        for other in PUBLISHED.values()
        if other.name != name and other.default and budget.target_loss is None
    ]
    if chosen.experts:
        gain = LING.leverage(chosen.activation_ratio, 2 * chosen.d_model / chosen.d_expert, flops)
        worth = OtherAnswer(leverage_of_this_shape=float(gain), at_flops=flops)
        rows.append(OtherLaw(law=LING.name, held_fixed=LING.held_fixed, answer=worth, answer_reason=None))
    return rows


def _by(other: Published, shapes: Shapes, budget: Budget, constraints: Constraints, costs: Costs) -> OtherLaw:
    found = search(other.law, shapes, budget, constraints, costs)
    best = found.best()
    if best is None:
        reason = "no candidate that this law covers fits"
        return OtherLaw(law=other.name, held_fixed=other.held_fixed, answer=None, answer_reason=reason)
    shape = shapes[best]
    answer = OtherAnswer(
        sparsity=shape.sparsity,
        experts=shape.experts,
        top_k=shape.top_k,
        total_parameters=total_parameters(shape),
        active_parameters=active_parameters(shape),
        tokens=round(float(found.tokens[best])),
        loss=float(found.loss[best]),
        budget_share=found.spent(best, budget),
        extrapolation=far_beyond(other.law, shape, float(found.tokens[best]), costs.context),
    )
    return OtherLaw(law=other.name, held_fixed=other.held_fixed, answer=answer, answer_reason=None)
