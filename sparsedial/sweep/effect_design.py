"""The design of a measured effect: two budgets and their models, chosen so that the measurement fits into its time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn

from sparsedial.errors import UserError
from sparsedial.machine.profile import Profile
from sparsedial.records.effect import EffectBudget, EffectInputs, EffectPlan
from sparsedial.shape.counts import training_flops_per_token
from sparsedial.shape.ladder import RUNGS, Ladder
from sparsedial.shape.shape import Shape
from sparsedial.sweep.at_once import RunCost
from sparsedial.sweep.budgets import (
    BESIDE_FACTOR,
    PHASE_SECONDS,
    PROBE_SECONDS,
    RUN_SECONDS,
    TOP_BUDGETS,
    round_budget,
)
from sparsedial.sweep.crossing import LEAST_TOTAL_SHARE
from sparsedial.sweep.layout import LEAST_STEPS, first_width
from sparsedial.sweep.rates import start_rates
from sparsedial.units import human_seconds, spelled_at_least

RATIO = 4.0  # of the larger budget to the smaller
BATCH, CONTEXT = 16, 64
PARTS = 3  # kept, random and full
SCORED_TOKENS = 1 << 18  # of validation and of test text, evenly spread, that score a run; all where they are fewer
PLANNED_SHARE = 0.85  # of the time that is left; the rest is for a machine that is slower than measured
PROFILE_WIDTHS, PROFILE_SECONDS = (16, 32, 48, 64, 96), 8.0  # of the timed steps
DEFAULT_SECONDS = 600.0


def profile_shapes(vocab_size: int) -> list[Shape]:
    """The shapes whose steps are timed."""
    ladder = Ladder(vocab_size=vocab_size, context=CONTEXT)
    return [ladder.shape(width, 0) for width in PROFILE_WIDTHS]


def plan_effect(
    inputs: EffectInputs,
    vocab_size: int,
    profile: Profile,
    *,
    seconds: float,
    workers: int,
    scored_tokens: int,
    domains: bool,
    probe_tokens: int = 0,
) -> EffectPlan:
    """The plan with the stated budgets, or with the largest that are predicted to fit into `seconds`.

    `scored_tokens` are those of validation and of test text that score a run; with `domains` test text is read twice.
    `probe_tokens` are those of all that a run is asked; 0 without probes.

    Raises: UserError where a budget is too small for a model, or the time for any.
    """

    def planned(budgets: Sequence[EffectBudget]) -> EffectPlan:
        predicted = _predicted(inputs, budgets, profile, workers, scored_tokens, domains, probe_tokens)
        return EffectPlan(
            inputs=inputs, budgets=tuple(budgets), batch=BATCH, context=CONTEXT, predicted_seconds=predicted
        )

    if inputs.budgets:
        stated = [effect_budget(budget, vocab_size, inputs.selection_flops) for budget in inputs.budgets]
        return planned([budget or _too_small(asked) for budget, asked in zip(stated, inputs.budgets, strict=True)])
    best, least = None, math.inf
    for top in TOP_BUDGETS:
        both = [effect_budget(round_budget(top / ratio), vocab_size, inputs.selection_flops) for ratio in (RATIO, 1.0)]
        if None in both:
            continue
        plan = planned([budget for budget in both if budget is not None])
        least = min(least, plan.predicted_seconds)
        if plan.predicted_seconds > PLANNED_SHARE * seconds:
            break
        best = plan
    return best or _too_short(seconds, least)


def effect_budget(budget_flops: float, vocab_size: int, selection_flops: float) -> EffectBudget | None:
    """The dense model whose width is expected to be best at a budget; None where no model gets enough steps.

    Where the score costs so much that little is left to train on, no model trains at equal total FLOPs.
    """
    ladder = Ladder(vocab_size=vocab_size, context=CONTEXT)
    shapes = [ladder.shape(rung, 0) for rung in RUNGS]
    allowed = [shape for shape in shapes if _steps(shape, budget_flops) >= LEAST_STEPS]
    if not allowed:
        return None
    width = first_width(budget_flops)
    shape = min(allowed, key=lambda one: abs(math.log(one.d_model / width)))
    left = budget_flops - selection_flops
    pays = selection_flops > 0 and left >= LEAST_TOTAL_SHARE * budget_flops
    return EffectBudget(
        budget_flops=budget_flops,
        shape=shape,
        steps=_steps(shape, budget_flops),
        steps_at_equal_total=_steps(shape, left) if pays else None,
        learning_rate=start_rates(shape)[1],
    )


def _steps(shape: Shape, flops: float) -> int:
    return int(flops // (training_flops_per_token(shape, CONTEXT) * BATCH * CONTEXT))


def runs_of(inputs: EffectInputs, budget: EffectBudget) -> float:
    """How many runs of its full length the models of one budget are, over all parts."""
    more = (budget.steps_at_equal_total or 0) / budget.steps
    return inputs.seeds * (PARTS + more)


def training_flops(plan: EffectPlan) -> float:
    """FLOPs of all runs of a plan."""
    return sum(
        runs_of(plan.inputs, budget)
        * budget.steps
        * plan.batch
        * plan.context
        * training_flops_per_token(budget.shape, plan.context)
        for budget in plan.budgets
    )


def _predicted(
    inputs: EffectInputs,
    budgets: Sequence[EffectBudget],
    profile: Profile,
    workers: int,
    scored_tokens: int,
    domains: bool,
    probe_tokens: int,
) -> float:
    """Seconds of all runs on the workers, with their scores. Domains are scored after the runs, in one process."""
    spent = PHASE_SECONDS  # the workers start
    for budget in budgets:
        step = float(profile.step_seconds(budget.shape, BATCH, CONTEXT).value)
        runs = inputs.seeds * (PARTS + (budget.steps_at_equal_total is not None))
        scoring = scored_tokens / (BATCH * CONTEXT) * step / 3
        probing = PROBE_SECONDS + probe_tokens / (BATCH * CONTEXT) * step / 3 if probe_tokens else 0.0
        side_by_side = RunCost(
            step=step,
            training=runs_of(inputs, budget) * budget.steps * step,
            beside=runs * (scoring + probing + RUN_SECONDS),
        )
        spent += (BESIDE_FACTOR if workers > 1 else 1.0) * side_by_side.shared(profile, workers)
        spent += runs * scoring / 2 if domains else 0.0
    return spent


def _too_small(budget: float) -> NoReturn:
    raise UserError(
        f"{budget:.3g} FLOPs allow no model with {LEAST_STEPS} steps of {BATCH * CONTEXT} tokens",
        hint="give larger budgets",
        field="budgets",
    )


def _too_short(seconds: float, least: float) -> NoReturn:
    raise UserError(
        f"{human_seconds(max(seconds, 0.0))} for training is too short for two budgets on this machine",
        hint=f"the minimum here is about {spelled_at_least(least / PLANNED_SHARE)}, after the texts are prepared",
        field="time",
    )
