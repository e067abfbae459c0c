"""Why a budget has no answer, and the way out."""

from __future__ import annotations

import numpy as np

from sparsedial.errors import UserError
from sparsedial.planning.budget import Budget
from sparsedial.planning.planner import MOST_TOKENS, Search
from sparsedial.shape.counts import active_parameters, total_parameters
from sparsedial.shape.shapes import Shapes
from sparsedial.units import human_cost, human_count

MOST_FLOPS = 1e32  # a million times the largest run known


def check_reach(budget: Budget, flops: float) -> None:
    """Raises: UserError where a budget buys far more FLOPs than any training spends."""
    if flops > MOST_FLOPS:
        amount = human_cost(budget.currency, budget.value) if budget.value else f"a loss of {budget.target_loss:g}"
        raise UserError(
            f"{amount} is not a realistic training budget: the best model would take {flops:.2g} FLOPs",
            hint="the largest runs known spend about 1e26",
        )


def nothing_fits(found: Search, budget: Budget, least: float) -> tuple[str, str | None]:
    """Why no candidate is allowed, and a way out; `least` is the fewest tokens that are considered."""
    reachable = np.isfinite(found.goal)
    if not reachable.any():
        return _out_of_reach(found, budget, f"{human_count(least)} tokens")
    alone = {name: int((mask & reachable).sum()) for name, mask in found.kept.items()}
    tight = min(alone, key=lambda name: alone[name])
    if alone[tight] == 0 and tight.startswith("sparsity="):
        levels = np.unique(found.shapes.sparsity[reachable])
        near = levels[np.argsort(np.abs(levels - float(tight.partition("=")[2])))[:2]]
        known = " and ".join(f"{value:g}" for value in near)
        return f"no shape respects {tight}", f"the nearest that this law and the search cover: {known}"
    if alone[tight] == 0:
        return f"no shape respects {tight}", _least_of(found.shapes.pick(reachable), tight) or "loosen it"
    pairs = [
        (one, other)
        for one in found.kept
        for other in found.kept
        if one < other and not (found.kept[one] & found.kept[other] & reachable).any()
    ]
    if pairs:
        return f"no shape respects both {pairs[0][0]} and {pairs[0][1]}", "loosen one of them"
    return f"no shape respects all of {', '.join(found.kept)}", "loosen one of them"


def _out_of_reach(found: Search, budget: Budget, fewest: str) -> tuple[str, str | None]:
    """Why no shape fits the budget or target loss, even without constraints; `fewest` are the fewest tokens."""
    if budget.target_loss is not None and (found.tokens < 0.99 * MOST_TOKENS).any():
        return f"{fewest} already reach a loss below {budget.target_loss:g}", "give a lower loss"
    if budget.target_loss is not None:
        return f"by this law no shape reaches a loss of {budget.target_loss:g}", "give a higher loss"
    assert budget.value is not None
    amount = human_cost(budget.currency, budget.value)
    if (found.tokens < 0).all():
        return (
            f"for every shape <inference_tokens> alone cost more than the budget of {amount}",
            "give a larger budget, or fewer inference tokens",
        )
    return f"{amount} is too little to train any shape for {fewest}", "give a larger budget"


def _least_of(shapes: Shapes, tight: str) -> str | None:
    """The smallest size that a bound on parameters would have to allow; None for other bounds."""
    name = tight.partition("=")[0]
    count = {"max_total_parameters": total_parameters, "max_active_parameters": active_parameters}.get(name)
    return count and f"the smallest that was considered has {human_count(float(np.min(count(shapes))))}"  # type: ignore[arg-type]
