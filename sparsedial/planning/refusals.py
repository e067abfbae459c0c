"""Why a budget has no answer, and the way out."""

from __future__ import annotations

import numpy as np

from sparsedial.errors import UserError
from sparsedial.law.fence import RUNS
from sparsedial.planning.budget import Budget
from sparsedial.planning.costs import Costs
from sparsedial.planning.planner import DEVICE_MEMORY, MOST_TOKENS, SPENT, Search
from sparsedial.shape.counts import active_parameters, total_parameters
from sparsedial.shape.shapes import Shapes
from sparsedial.units import human_bytes, human_cost, human_count

MOST_FLOPS = 1e32  # a million times the largest run known


def check_reach(budget: Budget, flops: float) -> None:
    """Raises: UserError where a budget buys far more FLOPs than any training spends."""
    if flops > MOST_FLOPS:
        amount = human_cost(budget.currency, budget.value) if budget.value else f"a loss of {budget.target_loss:g}"
        raise UserError(
            f"{amount} is not a realistic training budget: the best model would take {flops:.2g} FLOPs",
            hint="the largest runs known spend about 1e26",
        )


def nothing_fits(found: Search, budget: Budget, least: float, costs: Costs) -> tuple[str, str | None]:
    """Why no candidate is allowed, and a way out; `least` is the fewest tokens that are considered."""
    reachable = np.isfinite(found.goal)
    if not reachable.any():
        return _out_of_reach(found, budget, f"{human_count(least)} tokens")
    alone = {name: int((mask & reachable).sum()) for name, mask in found.kept.items()}
    tight = min(alone, key=lambda name: alone[name])
    if not (found.kept.get(SPENT, reachable) & reachable).any() and budget.value is not None:
        tokens, amount = human_count(float(found.tokens[0])), human_cost(budget.currency, budget.value)
        return (
            f"{amount} is too little for {tokens} tokens, the only number that this law is about",
            "give a larger budget",
        )
    asked = np.logical_and.reduce([mask for name, mask in found.kept.items() if name not in found.why] or [reachable])
    if (asked & reachable).any():
        return _fenced(found, asked & reachable)
    memory = next((name for name in found.kept if name.startswith(DEVICE_MEMORY)), None)
    if memory is not None and (larger := found.allowed_without(memory)).any():
        return _needs_devices(found.shapes.pick(larger), costs)
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


def _fenced(found: Search, asked: np.ndarray) -> tuple[str, str | None]:
    """Why the law does not answer, though shapes respect all that was asked."""
    names = [name for name in found.why if not (found.kept[name] & asked).any()] or list(found.why)
    held = "; ".join(f"{name.removeprefix(RUNS)} ({found.why[name]})" for name in names)
    return (
        f"this budget buys no model that the law may be asked about: it is held to its runs, {held}",
        "ask for a budget like those of its runs, or fit it again to runs that reach further",
    )


def _needs_devices(shapes: Shapes, costs: Costs) -> tuple[str, str | None]:
    """Why the devices are too few for any of the shapes that would do."""
    held = human_bytes(costs.devices * (costs.device_bytes or 0))
    least = human_bytes(float(np.min(costs.training_bytes(shapes))))
    count = costs.devices_for(shapes)
    return (
        f"every model that would do needs {least} or more to train, and <devices> {costs.devices} have {held}",
        "no number of such devices is enough" if count is None else f"<devices> {count}",
    )


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
