"""A plan as `plan.json` holds it: the answer with its error, its rival, its bounds, and what other laws say."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsedial.errors import UserError
from sparsedial.law.law import Law
from sparsedial.law.literature import LING, PUBLISHED, Published
from sparsedial.planning.budget import Budget, Constraints
from sparsedial.planning.costs import Costs, serving_bytes
from sparsedial.planning.crossing import around, race
from sparsedial.planning.fitted import beyond
from sparsedial.planning.planner import MOST_TOKENS, Search, least_tokens, search
from sparsedial.shape.counts import active_parameters, sparsity_of, total_parameters, training_flops_per_token
from sparsedial.shape.shape import Shape
from sparsedial.shape.shapes import Shapes
from sparsedial.units import human_cost, human_count, human_percent

MOST_FLOPS = 1e32  # a million times the largest run known
FEWEST_TOKENS = 0.1  # per total parameter, below which no training known to us lies
MOSTLY_SPENT = 0.5  # of a budget, where data bound a plan
REASONING_TOKENS = 20  # per total parameter; source: Nakamura et al. 2025, second-hand


def answer(
    law: Law,
    name: str,
    shapes: Shapes,
    budget: Budget,
    constraints: Constraints,
    costs: Costs,
    speaks: Published | None,
    others: bool = True,
) -> dict[str, Any]:
    """The plan for a budget.

    Raises: UserError where no candidate respects the constraints.
    """
    found = search(law, shapes, budget, constraints, costs, speaks)
    best = found.best()
    if best is None:
        raise UserError(*nothing_fits(found, budget, least_tokens(law, constraints)))
    shape, tokens = shapes[best], round(float(found.tokens[best]))
    flops = float(training_flops_per_token(shape, costs.context)) * tokens
    check_reach(budget, flops)
    near = found.near(best)
    rival = found.best(shapes.experts == 0)
    cross, why = _crossing(law, shapes, budget, constraints, costs, speaks)
    return {
        "budget": {"currency": budget.currency, "value": budget.value, "target_loss": budget.target_loss},
        "law": name,
        "law_source": law.source,
        "shape": shape.record(),
        "tokens": tokens,
        "total_parameters": total_parameters(shape),
        "active_parameters": active_parameters(shape),
        "sparsity": sparsity_of(shape),
        "predicted_loss": predicted(law, shape, tokens, float(found.loss[best])),
        "costs": costs_of(shape, tokens, costs, constraints),
        "machine": costs.record(),
        "dense_rival": None if rival is None else _rival(law, found, rival),
        "dense_rival_reason": None if rival is not None else _no_rival(speaks),
        "crossover": cross,
        "crossover_reason": why,
        "binding_constraints": found.binding(best) + on_edges(shapes, best, found),
        "near_optimal": _band(found, near),
        "tokens_per_total_parameter": tokens / total_parameters(shape),
        "other_laws": _others(name, shapes, shape, flops, budget, constraints, costs) if others else [],
        "warnings": warnings(law, speaks, shape, tokens, costs, constraints, found.spent(best, budget)),
        "candidates": len(shapes),
        "recipe": recipe(shape, tokens, costs.context),
        "recipe_source": "Ling 2025 (arXiv 2507.17702), fitted on 3e17 to 3e20 FLOPs: a start for a scan",
    }


def check_reach(budget: Budget, flops: float) -> None:
    """Raises: UserError where a budget buys more FLOPs than any training will ever spend."""
    if flops > MOST_FLOPS:
        amount = human_cost(budget.currency, budget.value) if budget.value else f"a loss of {budget.target_loss:g}"
        raise UserError(
            f"plan: {amount} is no training budget: the best model would take {flops:.2g} FLOPs",
            hint="the largest runs known spend about 1e26",
        )


def nothing_fits(found: Search, budget: Budget, least: float) -> tuple[str, str | None]:
    """Why no candidate is allowed, and a way out; `least` are the fewest tokens that a training takes."""
    reachable, words = np.isfinite(found.goal), f"{human_count(least)} tokens"
    if not reachable.any():
        if budget.target_loss is not None and (found.tokens < 0.99 * MOST_TOKENS).any():
            return (
                f"plan: {words} do better than a loss of {budget.target_loss:g}",
                "give a lower one",
            )
        if budget.target_loss is not None:
            return f"plan: no shape reaches a loss of {budget.target_loss:g} by this law", "give a higher one"
        assert budget.value is not None
        amount = human_cost(budget.currency, budget.value)
        if (found.tokens < 0).all():
            return (
                f"plan: --inference-tokens alone cost any shape more than the budget of {amount}",
                "give a larger budget, or fewer of them",
            )
        return (
            f"plan: {amount} train no shape for {words}",
            "give a larger budget",
        )
    alone = {name: int((mask & reachable).sum()) for name, mask in found.kept.items()}
    tight = min(alone, key=lambda name: alone[name])
    if alone[tight] == 0 and tight.startswith("sparsity="):
        levels = np.unique(found.shapes.sparsity[reachable])
        near = levels[np.argsort(np.abs(levels - float(tight.partition("=")[2])))[:2]]
        known = " and ".join(f"{value:g}" for value in near)
        return f"plan: no shape respects {tight}", f"this law and the search know {known}"
    if alone[tight] == 0:
        return f"plan: no shape respects {tight}", _least_of(found.shapes.pick(reachable), tight) or "loosen it"
    pairs = [
        (one, other)
        for one in found.kept
        for other in found.kept
        if one < other and not (found.kept[one] & found.kept[other] & reachable).any()
    ]
    if pairs:
        return f"plan: no shape respects both {pairs[0][0]} and {pairs[0][1]}", "loosen one of them"
    return f"plan: no shape respects all of {', '.join(found.kept)}", "loosen one of them"


def _least_of(shapes: Shapes, tight: str) -> str | None:
    """The least that a bound on parameters would have to allow; None for other bounds."""
    name = tight.partition("=")[0]
    count = {"max_total_parameters": total_parameters, "max_active_parameters": active_parameters}.get(name)
    return count and f"the smallest that was considered has {human_count(float(np.min(count(shapes))))}"  # type: ignore[arg-type]


def predicted(law: Law, shape: Shape, tokens: float, loss: float) -> dict[str, Any]:
    """A loss with its interval, where the law has one."""
    if not law.samples:
        return {
            "mean": loss,
            "low": None,
            "high": None,
            "interval_basis": None,
            "interval_reason": "the law was fitted without samples (--bootstrap 0), so how sure it is is not known"
            if law.source == "ours"
            else "the law was published without errors of its coefficients, so none are invented",
        }
    low, high = law.interval(**law.variables(shape, tokens))
    return {"mean": loss, "low": float(low[0]), "high": float(high[0]), "interval_basis": "bootstrap"}


def costs_of(shape: Shape, tokens: float, costs: Costs, constraints: Constraints) -> dict[str, Any]:
    """What a training run costs in every currency, and the memory it takes; null with the reason where unknown."""
    known: dict[str, Any] = {
        "flops": float(training_flops_per_token(shape, costs.context)) * tokens,
        "memory_bytes": float(costs.training_bytes(shape)),
        "memory_parts": costs.memory_parts(shape).record(),
        "memory_source": costs.memory_source,
        "serving_memory_bytes": serving_bytes(shape, constraints.serving_positions, constraints.serving_sequences),
    }
    if costs.machine is None:
        reason = "no machine was named: --device h100, or a profile.json"
        return {
            **known,
            **dict.fromkeys(("seconds", "seconds_low", "seconds_high", "joules", "dollars")),
            "seconds_reason": reason,
            "joules_reason": reason,
            "dollars_reason": reason,
        }
    low, middle, high = (float(np.asarray(side)) * tokens for side in costs.seconds(shape))
    price = costs.dollars_per_hour
    return {
        **known,
        "seconds": middle,
        "seconds_low": low,
        "seconds_high": high,
        "joules": middle * costs.devices * costs.watts,
        "dollars": None if price is None else middle * costs.devices * price / 3600,
        "dollars_reason": "no price was given: --price" if price is None else None,
    }


def _rival(law: Law, found: Search, place: int) -> dict[str, Any]:
    shape, tokens = found.shapes[place], round(float(found.tokens[place]))
    return {
        "shape": shape.record(),
        "tokens": tokens,
        "total_parameters": total_parameters(shape),
        "cost": float(found.cost[place]),
        "predicted_loss": predicted(law, shape, tokens, float(found.loss[place])),
    }


def _no_rival(speaks: Published | None) -> str:
    if speaks is not None and speaks.ratios[0] > 1:
        return "this law does not speak of dense models"
    return "no dense shape respects the constraints"


def _crossing(
    law: Law, shapes: Shapes, budget: Budget, constraints: Constraints, costs: Costs, speaks: Published | None
) -> tuple[dict[str, Any] | None, str | None]:
    if budget.value is None:
        return None, "the crossover is a budget, and a target loss was given instead"
    found = race(
        law,
        shapes,
        currency=budget.currency,
        budgets=around(budget.value),
        costs=costs,
        constraints=constraints,
        speaks=speaks,
    )
    return found["crossover"], found["crossover_reason"]


def on_edges(shapes: Shapes, best: int, found: Search) -> list[str]:
    """The ends of the search space that the best shape sits on."""
    edges = []
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


def _band(found: Search, near: np.ndarray) -> dict[str, list[float]]:
    shapes = found.shapes.pick(near)

    def span(values: Any) -> list[float]:
        return [float(np.min(values)), float(np.max(values))]

    return {
        "sparsity": span(shapes.sparsity),
        "total_parameters": span(total_parameters(shapes)),  # type: ignore[arg-type]
        "active_parameters": span(active_parameters(shapes)),  # type: ignore[arg-type]
        "tokens": span(found.tokens[near]),
    }


def _others(
    name: str,
    shapes: Shapes,
    chosen: Shape,
    flops: float,
    budget: Budget,
    constraints: Constraints,
    costs: Costs,
) -> list[dict[str, Any]]:
    """What each other published law answers to the same question, and Ling's leverage of the chosen shape."""
    rows = []
    for other in PUBLISHED.values():
        if other.name == name or not other.default or budget.target_loss is not None:
            continue
        found = search(other.law, shapes, budget, constraints, costs, other)
        best = found.best()
        row: dict[str, Any] = {"law": other.name, "held_fixed": other.held_fixed}
        if best is None:
            rows.append({**row, "answer": None, "answer_reason": "no candidate that this law speaks of fits"})
            continue
        shape = shapes[best]
        rows.append(
            {
                **row,
                "answer": {
                    "sparsity": shape.sparsity,
                    "experts": shape.experts,
                    "top_k": shape.top_k,
                    "total_parameters": total_parameters(shape),
                    "active_parameters": active_parameters(shape),
                    "tokens": round(float(found.tokens[best])),
                    "loss": float(found.loss[best]),
                },
                "answer_reason": None,
            }
        )
    if chosen.experts:
        gain = LING.leverage(chosen.activation_ratio, 2 * chosen.d_model / chosen.d_expert, flops)
        rows.append(
            {
                "law": LING.name,
                "held_fixed": LING.held_fixed,
                "answer": {"leverage_of_this_shape": float(gain), "at_flops": flops},
                "answer_reason": None,
            }
        )
    return rows


def warnings(
    law: Law,
    speaks: Published | None,
    shape: Shape,
    tokens: float,
    costs: Costs,
    constraints: Constraints,
    spent: float = 1.0,
) -> list[str]:
    """What to mind about an answer: how far the law reaches, where it misleads, too few tokens, repeated data.

    `spent` is the share of the budget that the training takes.
    """
    lines = beyond(law, shape, tokens, costs.context)
    if speaks is not None:
        lines.append(f"{speaks.name}: {speaks.misleads}")
    per_parameter = tokens / total_parameters(shape)
    if per_parameter < REASONING_TOKENS:
        few = "" if per_parameter >= FEWEST_TOKENS else "far fewer than any model is trained with; "
        lines.append(
            f"{per_parameter:.3g} tokens per total parameter: {few}reasoning tasks want about {REASONING_TOKENS}"
            " (Nakamura et al. 2025, second-hand), knowledge tasks less"
        )
    if constraints.data_tokens is not None and tokens > constraints.data_tokens:
        lines.append(f"the data are read {tokens / constraints.data_tokens:.2g} times; repeats are discounted")
    if constraints.data_tokens is not None and spent < MOSTLY_SPENT:
        lines.append(
            f"the data end long before the budget: they take {human_percent(spent)} of it, so size is all that is left"
            " to buy; find more data, or plan with a smaller budget"
        )
    return lines


def recipe(shape: Shape, tokens: float, context: int) -> dict[str, Any]:
    """A first recipe by Ling's rules for sparse models, to be checked by a scan.

    Source: Ling 2025 (arXiv 2507.17702): lr = 1.1576 C^-0.1529, batch = 0.0694 C^0.3644 tokens, C in 3e17..3e20
    """
    flops = training_flops_per_token(shape, context) * tokens
    batch = max(1, round(0.0694 * flops**0.3644 / context))
    return {
        "learning_rate": float(f"{1.1576 * flops**-0.1529:.3g}"),
        "batch": batch,
        "context": context,
        "steps": max(1, round(tokens / (batch * context))),
    }
