"""Rivals trained at equal cost: at equal FLOPs in parallel, at equal seconds alone on the machine and in turns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparsedial.law.law import Law
from sparsedial.records.grid import RateModel
from sparsedial.records.quantities import Family
from sparsedial.records.run import Run
from sparsedial.runs.executor import Task
from sparsedial.shape.shape import Shape
from sparsedial.sweep.cells import Cells
from sparsedial.sweep.lab import Lab
from sparsedial.sweep.layout import LEAST_STEPS
from sparsedial.sweep.rates import learning_rate
from sparsedial.sweep.rivals import Rival, Rivals, candidates, edge, predicted_loss, ranked, verdict_task
from sparsedial.sweep.verdict import COST_TOLERANCE, Pair
from sparsedial.units import family_name

TRIAL_SECONDS, TRIAL_SHARE, TRIAL_STEPS = (
    2.5,
    0.1,
    20,
)  # a timing trial; the share is of the run's steps
SHORTLIST: dict[Family, int] = {"dense": 2, "sparse": 3}  # candidates that are timed before the choice
BEYOND = 1  # rungs on either side of the grid that are candidates at equal seconds


def equal_flops(lab: Lab, rates: RateModel, rivals: Rivals, seeds: int) -> Pair:
    """Train both rivals with every seed on the study's workers."""
    tasks = {
        (rival.family, seed): verdict_task(lab, rates, rival, seed, False)
        for seed in _seeds(seeds)
        for rival in rivals.both()
    }
    runs = lab.run(tasks.values())
    dense, sparse = ([runs[tasks[rival.family, seed].job.hash] for seed in _seeds(seeds)] for rival in rivals.both())
    return Pair(dense=dense, sparse=sparse)


def _seeds(count: int) -> range:
    return range(1, count + 1)


def seconds_per_step(lab: Lab, rates: RateModel, shapes: Sequence[Shape], steps: int, batch: int) -> dict[Shape, float]:
    """Median seconds of a training step of each shape, timed in turns with nothing else running."""
    tasks: list[Task] = []
    for shape in dict.fromkeys(shapes):
        step = lab.profile.step_seconds(shape, batch, lab.context).value
        count = max(TRIAL_STEPS, min(math.ceil(TRIAL_SECONDS / step), int(TRIAL_SHARE * steps)))
        rate = learning_rate(rates, shape, count * batch * lab.context)
        label = f"timing {family_name(shape.experts)}, width {shape.d_model}"
        tasks.append(Task(job=lab.job(shape, count, batch, rate, lab.seed), label=label, splits=(), alone=True))
    runs = lab.run_in_turn(tuple(tasks))
    return {task.job.shape: runs[task.job.hash].median_step_seconds for task in tasks}


@dataclass(frozen=True, kw_only=True)
class SecondsPlan:
    """The models to train at equal seconds, fixed before the first timed run."""

    budget_run: Rival  # the dense winner at equal FLOPs: its cost is the budget
    rivals: Rivals
    budget_seconds: float  # as predicted by the timing trial
    edges: Mapping[Family, str]  # in words, where a chosen width is the last candidate on its side
    step_seconds: Mapping[Shape, float]  # by the timing trial: of these rivals and of those at equal FLOPs


def plan_seconds(lab: Lab, rates: RateModel, law: Law | None, cells: Cells, at_flops: Rivals) -> SecondsPlan:
    """Choose the shape and tokens of each family for the seconds that the best dense model at equal FLOPs takes.

    The profile gives a short list, a timing trial in turns replaces its times, and the law chooses. Seconds favour
    other sizes than FLOPs do, so one rung beyond those that the grid trained is also a candidate.
    """
    winner, batch = at_flops.dense, lab.layout.batch
    expected = lab.profile.step_seconds(winner.shape, batch, lab.context).value * winner.steps
    considered: dict[Family, list[Shape]] = {
        rival.family: candidates(lab.layout, cells, rival.family, BEYOND) for rival in at_flops.both()
    }
    listed = {
        rival.family: [rival.shape, *_shortlist(lab, law, considered[rival.family], rival.family, expected)]
        for rival in at_flops.both()
    }
    timed = seconds_per_step(lab, rates, [*listed["dense"], *listed["sparse"]], winner.steps, batch)
    budget = timed[winner.shape] * winner.steps

    def choose(family: Family) -> Rival:
        options = [
            Rival(family=family, shape=shape, steps=max(LEAST_STEPS, round(budget / timed[shape])), batch=batch)
            for shape in dict.fromkeys(listed[family])
        ]
        return _best_predicted(law, options, lab.context)

    dense, sparse = choose("dense"), choose("sparse")
    found = {rival: edge(rival.shape, considered[rival.family]) for rival in (dense, sparse)}
    return SecondsPlan(
        budget_run=winner,
        rivals=Rivals(dense=winner if dense.shape == winner.shape else dense, sparse=sparse),
        budget_seconds=budget,
        edges={rival.family: words for rival, words in found.items() if words is not None},
        step_seconds=timed,
    )


def _best_predicted(law: Law | None, options: Sequence[Rival], context: int) -> Rival:
    """The rival with the lowest predicted loss; without a law, the first one."""
    return options[0] if law is None else min(options, key=lambda rival: predicted_loss(law, rival, context))


def _shortlist(lab: Lab, law: Law | None, shapes: Sequence[Shape], family: Family, seconds: float) -> list[Shape]:
    """The shapes that the profile and the law predict to be best at these seconds; none without a law."""
    if law is None:
        return []
    return [answer.shape for answer in ranked(lab, law, shapes, "seconds", seconds)[: SHORTLIST[family]]]


def equal_seconds(lab: Lab, rates: RateModel, plan: SecondsPlan, seeds: int) -> tuple[float, Pair]:
    """Train both rivals alone and in turns, seed by seed. Adjust steps once where a cost is over 3 % off the budget.

    The cost of the best dense model at equal FLOPs is the budget. It runs in turns with the rivals under the first
    seed, and there the steps are adjusted. Later changes of the machine's speed affect both rivals alike, so the budget
    moves with the dense one.

    Returns the budget in measured seconds, and the runs.
    """
    rivals = plan.rivals
    first = _timed_round(lab, rates, rivals, 1, plan.budget_run)
    adjusted = Rivals(
        dense=_adjusted(rivals.dense, plan.budget_run, first), sparse=_adjusted(rivals.sparse, plan.budget_run, first)
    )
    if adjusted != rivals:
        rivals = adjusted
        first = _timed_round(lab, rates, rivals, 1, plan.budget_run, again=True)
    rounds = [first, *(_timed_round(lab, rates, rivals, seed) for seed in _seeds(seeds)[1:])]
    pair = Pair(dense=[runs[rivals.dense] for runs in rounds], sparse=[runs[rivals.sparse] for runs in rounds])
    share = first[plan.budget_run].seconds / first[rivals.dense].seconds
    return share * float(np.mean([run.seconds for run in pair.dense])), pair


def _adjusted(rival: Rival, budget_run: Rival, first: Mapping[Rival, Run]) -> Rival:
    """The rival with as many steps as cost the same as the budget's run in the first round."""
    ratio = first[rival].seconds / first[budget_run].seconds
    if rival == budget_run or abs(ratio - 1) <= COST_TOLERANCE:
        return rival
    return replace(rival, steps=max(LEAST_STEPS, round(rival.steps / ratio)))


def _timed_round(
    lab: Lab, rates: RateModel, rivals: Rivals, seed: int, beside: Rival | None = None, again: bool = False
) -> dict[Rival, Run]:
    """Train both rivals with one seed, in turns; `beside` is a third run in the same turns, which sets the budget."""
    in_turn = [*rivals.both(), *([beside] if beside is not None else [])]
    tasks = {rival: verdict_task(lab, rates, rival, seed, True, again) for rival in in_turn}
    runs = lab.run_in_turn(tuple(tasks.values()))
    return {rival: runs[task.job.hash] for rival, task in tasks.items()}
