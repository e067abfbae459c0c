"""The rivals of a verdict: the best sparse and the best dense model at equal cost, trained with fresh seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsedial.law.law import Law
from sparsedial.planning.search import Answer, rank
from sparsedial.shape.shape import Shape
from sparsedial.sweep.grid import LEAST_STEPS, RUNGS, Cell, Layout, open_side
from sparsedial.sweep.phases import Setup, line_losses, run_label
from sparsedial.sweep.rates import RateModel
from sparsedial.sweep.verdict import COST_TOLERANCE, decide, undecided
from sparsedial.sweep.workers import Task, run_in_turn
from sparsedial.units import human_count

TEST_TOKENS = 1 << 20  # of the test split, evenly spread, in a verdict run; all where the split is smaller
TRIAL_SECONDS, TRIAL_SHARE = 2.5, 0.1  # of each candidate's timing trial, at most; and of the run it stands for
SHORTLIST = {"dense": 2, "sparse": 3}  # candidates that are timed before the choice at equal seconds


@dataclass(frozen=True, kw_only=True)
class Rival:
    """One side of a verdict: a shape and its whole number of steps."""

    family: str  # "dense" or "sparse"
    shape: Shape
    steps: int
    batch: int  # sequences per step

    def tokens(self, context: int) -> int:
        """Tokens that it learns from."""
        return self.steps * self.batch * context


def candidate_shapes(
    layout: Layout, done: dict[Cell, dict[str, Any]], experts: Sequence[int], beyond: int = 0
) -> list[Shape]:
    """The ladder's shapes between the smallest and the largest width that was trained with that many experts.

    `beyond` adds so many rungs on either side.
    """
    shapes = []
    for count in experts:
        places = [RUNGS.index(cell.d_model) for cell in done if cell.experts == count]
        rungs = RUNGS[max(0, min(places) - beyond) : max(places) + beyond + 1]
        shapes += [layout.ladder.shape(rung, count) for rung in rungs]
    return shapes


def families(layout: Layout, done: dict[Cell, dict[str, Any]], beyond: int = 0) -> dict[str, list[Shape]]:
    """The candidates of each family."""
    return {
        "dense": candidate_shapes(layout, done, [0], beyond),
        "sparse": candidate_shapes(layout, done, [count for count in layout.experts if count], beyond),
    }


def edge(shape: Shape, candidates: Sequence[Shape]) -> str | None:
    """In words, that a chosen width is the smallest or largest candidate of its sparsity; None inside."""
    widths = [other.d_model for other in candidates if other.experts == shape.experts]
    if min(widths) < shape.d_model < max(widths):
        return None
    side = "smaller" if shape.d_model == min(widths) else "larger"
    family = f"{shape.experts} experts" if shape.experts else "dense"
    return f"the best {family} size may be {side} than width {shape.d_model}, the last one considered"


def flop_rivals(setup: Setup, law: Law | None, done: dict[Cell, dict[str, Any]], budget: float) -> dict[str, Rival]:
    """The best predicted shape of each family at a budget of FLOPs; without a law the best measured cell."""
    layout = setup.layout
    rivals = {}
    for family, shapes in families(layout, done).items():
        if law is None:
            shape = _best_measured(layout, done, budget, dense=family == "dense")
        else:
            shape = ranked(setup, law, shapes, "flops", budget, layout.batch)[0].shape
        steps = layout.steps_for(shape, budget)
        rivals[family] = Rival(family=family, shape=shape, steps=steps, batch=layout.batch)
    return rivals


def ranked(setup: Setup, law: Law, shapes: Sequence[Shape], currency: str, budget: float, batch: int) -> list[Answer]:
    """Answers for these shapes at a budget, best predicted loss first."""
    return rank(
        law,
        shapes,
        currency=currency,
        budget=budget,
        profile=setup.profile,
        batch=batch,
        context=setup.layout.ladder.context,
        least_steps=LEAST_STEPS,
    )


def _best_measured(layout: Layout, done: dict[Cell, dict[str, Any]], budget: float, dense: bool) -> Shape:
    losses = {
        cell: record["validation_loss"]
        for cell, record in done.items()
        if cell.budget_flops == budget and (cell.experts == 0) == dense and record["status"] == "finished"
    }
    return layout.shape(min(losses, key=lambda cell: losses[cell]))


def open_sides(layout: Layout, done: dict[Cell, dict[str, Any]], rivals: dict[str, Rival], budget: float) -> list[str]:
    """In words, the sides on which a rival's minimum was not bracketed at the largest budget."""
    sides = []
    for rival in rivals.values():
        experts = rival.shape.experts
        losses = line_losses(done, experts, budget)
        side = open_side(losses) if losses else "larger"
        if side is not None:
            edge = min(losses) if side == "smaller" else max(losses)
            family = f"{experts} experts" if experts else "dense"
            sides.append(f"the best {family} size may be {side} than width {edge}, the last one trained")
    return sides


def verdict_task(setup: Setup, rates: RateModel, rival: Rival, seed: int, alone: bool, again: bool = False) -> Task:
    """One run of a rival with a seed that the grid did not use, scored on test text."""
    tokens = rival.tokens(setup.layout.ladder.context)
    rate = rates.rate(rival.shape, tokens)
    job = setup.job(rival.shape, rival.steps, rival.batch, rate, setup.seed + seed)
    what = f", seed {seed}" + (", timed" if alone else "") + (" again" if again else "")
    return Task(
        job=job,
        label=run_label(rival.shape.d_model, rival.shape.experts, f"{human_count(tokens)} tokens", what),
        splits=("validation", "test"),
        evaluation_tokens=TEST_TOKENS,
        alone=alone,
        keep_checkpoint=True,
        tag=(rival, seed),
    )


def equal_flops(
    setup: Setup, rates: RateModel, rivals: dict[str, Rival], seeds: int
) -> dict[str, list[dict[str, Any]]]:
    """Run both rivals with every seed on the study's workers; records by family, in the order of seeds."""
    tasks = [verdict_task(setup, rates, rival, seed, False) for seed in _seeds(seeds) for rival in rivals.values()]
    records = setup.run(tasks)
    return {family: [records[task.job.hash] for task in tasks if task.tag[0].family == family] for family in rivals}


def _seeds(count: int) -> range:
    return range(1, count + 1)


def seconds_per_step(
    setup: Setup, rates: RateModel, shapes: Sequence[Shape], steps: int, batch: int
) -> dict[Shape, float]:
    """Median seconds of a training step of each shape, timed in turn with the machine to themselves."""
    tasks, context = [], setup.layout.ladder.context
    for shape in dict.fromkeys(shapes):
        step = setup.profile.step_seconds(shape, batch, context).value
        count = max(20, min(math.ceil(TRIAL_SECONDS / step), int(TRIAL_SHARE * steps)))
        rate = rates.rate(shape, count * batch * context)
        experts = f"{shape.experts} experts" if shape.experts else "dense"
        tasks.append(
            Task(
                job=setup.job(shape, count, batch, rate, setup.seed),
                label=f"timing {experts}, width {shape.d_model}",
                splits=(),
                alone=True,
            )
        )
    records = run_in_turn(tuple(tasks), store=setup.store, text_folder=setup.text.folder, listener=setup.listener)
    return {task.job.shape: records[task.job.hash]["median_step_seconds"] for task in tasks}


@dataclass(frozen=True, kw_only=True)
class SecondsPlan:
    """What is trained at equal seconds, frozen before the first timed run."""

    dense_flops: Rival  # its cost is the budget
    dense: Rival
    sparse: Rival
    budget_seconds: float  # as the timing trial expects it
    step_seconds: dict[str, float]
    edges: dict[str, str]  # by family, in words, where the chosen width is the last candidate on its side


def plan_seconds(
    setup: Setup, rates: RateModel, law: Law | None, done: dict[Cell, dict[str, Any]], at_flops: dict[str, Rival]
) -> SecondsPlan:
    """Choose shape and tokens of each family for the seconds that the dense FLOP winner costs.

    The profile makes a short list, a timing trial in turn replaces its figures, the law chooses. Seconds favour other
    sizes than FLOPs do, so a rung beyond what the grid trained is a candidate too.
    """
    layout, winner = setup.layout, at_flops["dense"]
    batch, context = winner.batch, layout.ladder.context
    expected = setup.profile.step_seconds(winner.shape, batch, context).value * winner.steps
    candidates = families(layout, done, beyond=1)
    listed = {
        family: [answer.shape for answer in ranked(setup, law, shapes, "seconds", expected, batch)[: SHORTLIST[family]]]
        if law is not None
        else [at_flops[family].shape]
        for family, shapes in candidates.items()
    }
    timed = seconds_per_step(
        setup, rates, [winner.shape, at_flops["sparse"].shape, *listed["dense"], *listed["sparse"]], winner.steps, batch
    )
    budget = timed[winner.shape] * winner.steps

    def choose(family: str) -> Rival:
        options = [
            Rival(family=family, shape=shape, steps=max(LEAST_STEPS, round(budget / timed[shape])), batch=batch)
            for shape in dict.fromkeys([at_flops[family].shape, *listed[family]])
        ]
        if law is None:
            return options[0]
        losses = [
            float(np.asarray(law.loss(**law.variables(option.shape, option.tokens(context)))).item())
            for option in options
        ]
        return options[int(np.argmin(losses))]

    dense, sparse = choose("dense"), choose("sparse")
    edges = {rival.family: edge(rival.shape, candidates[rival.family]) for rival in (dense, sparse)}
    return SecondsPlan(
        dense_flops=winner,
        dense=winner if dense.shape == winner.shape else dense,
        sparse=sparse,
        edges={family: words for family, words in edges.items() if words is not None},
        budget_seconds=budget,
        step_seconds={f"{shape.d_model}/{shape.experts}": value for shape, value in timed.items()},
    )


def equal_seconds(
    setup: Setup, rates: RateModel, plan: SecondsPlan, seeds: int
) -> tuple[float, dict[str, list[dict[str, Any]]]]:
    """Run both rivals alone and in turn, seed by seed; adjust steps once where a cost misses the budget by over 3 %.

    The dense FLOP winner, whose cost is the budget, runs in turn with them under the first seed; there the steps are
    adjusted. What the machine does later falls on both rivals alike, so the budget moves with the dense one.

    Returns the budget in measured seconds, and the records by family.
    """
    first = _timed_round(setup, rates, plan, 1)
    adjusted = replace(plan, dense=_adjust(plan.dense, plan, first), sparse=_adjust(plan.sparse, plan, first))
    if adjusted != plan:
        plan = adjusted
        first = _timed_round(setup, rates, plan, 1, again=True)
    rounds = [first] + [_timed_round(setup, rates, plan, seed) for seed in _seeds(seeds)[1:]]
    records = {rival.family: [done[rival] for done in rounds] for rival in (plan.dense, plan.sparse)}
    share = first[plan.dense_flops]["seconds"] / first[plan.dense]["seconds"]
    return share * float(np.mean([record["seconds"] for record in records["dense"]])), records


def _adjust(rival: Rival, plan: SecondsPlan, first: dict[Rival, dict[str, Any]]) -> Rival:
    ratio = first[rival]["seconds"] / first[plan.dense_flops]["seconds"]
    if rival == plan.dense_flops or abs(ratio - 1) <= COST_TOLERANCE:
        return rival
    return replace(rival, steps=max(LEAST_STEPS, round(rival.steps / ratio)))


def _timed_round(
    setup: Setup, rates: RateModel, plan: SecondsPlan, seed: int, again: bool = False
) -> dict[Rival, dict[str, Any]]:
    """Both rivals with one seed, in turn; under the first seed the run that sets the budget beside them."""
    rivals = list(dict.fromkeys([plan.dense, plan.sparse] + ([plan.dense_flops] if seed == 1 else [])))
    group = tuple(verdict_task(setup, rates, rival, seed, True, again) for rival in rivals)
    done = run_in_turn(group, store=setup.store, text_folder=setup.text.folder, listener=setup.listener)
    return {rival: done[task.job.hash] for rival, task in zip(rivals, group, strict=True)}


def joules_verdict(seconds: dict[str, Any], watts: float, source: str) -> dict[str, Any]:
    """The verdict at equal joules where no meter is readable: the seconds' verdict times stated watts."""
    if seconds["budget"]["value"] is None:
        return undecided("joules", seconds["reason"], None, "estimated")
    scaled = {
        family: {**seconds[family], "joules": seconds[family]["seconds"] * watts} if seconds[family] else None
        for family in ("dense", "sparse")
    }
    return {
        **seconds,
        **scaled,
        "budget": {"currency": "joules", "value": seconds["budget"]["value"] * watts},
        "basis": "estimated",
        "reason": f"{seconds['reason']}; no meter is readable:"
        f" this is the seconds' finding times {watts:g} W ({source})",
    }


def decide_currency(
    currency: str,
    budget: float,
    records: dict[str, list[dict[str, Any]]],
    sides: Sequence[str],
    edges: Mapping[str, str] | None = None,
    law: Law | None = None,
) -> dict[str, Any]:
    """The verdict of one currency from its records; the law says what a cost that misses the budget is worth."""
    worth = law and {family: nats_per_efold(law, runs[0]) for family, runs in records.items()}
    return decide(currency, budget, records["dense"], records["sparse"], sides, edges, worth=worth)


def nats_per_efold(law: Law, record: dict[str, Any]) -> float:
    """Loss that e times the cost takes off a run whose shape stays, by the law: e times the tokens."""
    shape = Shape(**record["shape"])
    less, more = (law.loss(**law.variables(shape, record["tokens"] * factor)).item() for factor in (1.0, math.e**0.05))
    return (less - more) / 0.05
