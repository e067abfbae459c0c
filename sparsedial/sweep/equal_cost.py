"""Rivals trained at equal cost: at equal FLOPs in parallel, at equal seconds alone on the machine and in turns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparsedial.law.law import Law
from sparsedial.records.quantities import Family
from sparsedial.records.run import Run
from sparsedial.records.study import TimedSteps
from sparsedial.runs.executor import Task
from sparsedial.shape.shape import Shape
from sparsedial.sweep.cells import CellResult, Cells
from sparsedial.sweep.lab import Lab
from sparsedial.sweep.layout import LEAST_STEPS, Layout
from sparsedial.sweep.rates import RatesBy, scanned_gain
from sparsedial.sweep.rivals import (
    Nominees,
    Rival,
    Rivals,
    StepKind,
    candidates,
    edge,
    law_loss,
    predicted_loss,
    ranked,
    verdict_task,
)
from sparsedial.sweep.verdict import COST_TOLERANCE, Pair
from sparsedial.units import family_name

TRIAL_SECONDS, TRIAL_SHARE, TRIAL_STEPS = (
    2.5,
    0.1,
    20,
)  # a timing trial; the share is of the run's steps
SHORTLIST: dict[Family, int] = {"dense": 2, "sparse": 3}  # candidates that are timed before the choice
BEYOND = 1  # rungs on either side of the grid that are candidates at equal seconds


def equal_flops(lab: Lab, rates: RatesBy, rivals: Rivals, seeds: int) -> Pair:
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


def seconds_per_step(
    lab: Lab, rates: RatesBy, shapes: Sequence[Shape], steps: int, batch: int
) -> dict[StepKind, float]:
    """Median seconds of a training step of each shape with each optimizer, timed in turns with nothing else running."""
    tasks: list[Task] = []
    for shape, optimizer in itertools.product(dict.fromkeys(shapes), lab.optimizers):
        step = lab.profile.step_seconds(shape, batch, lab.context).value
        count = max(TRIAL_STEPS, min(math.ceil(TRIAL_SECONDS / step), int(TRIAL_SHARE * steps)))
        rate = rates[optimizer].model.at(shape, count * batch * lab.context)
        by = f", {optimizer}" if len(lab.optimizers) > 1 else ""
        label = f"timing {family_name(shape.experts)}, width {shape.d_model}{by}"
        job = lab.job(shape, count, batch, rate, lab.seed, optimizer)
        tasks.append(Task(job=job, label=label, splits=(), alone=True))
    runs = lab.run_in_turn(tuple(tasks))
    return {
        StepKind(task.job.shape, task.job.recipe.optimizer): runs[task.job.hash].median_step_seconds for task in tasks
    }


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The shapes that were timed before the choice of the models for equal seconds."""

    considered: Mapping[Family, Sequence[Shape]]  # the candidates of which the timed ones are a short list
    listed: Mapping[Family, Sequence[Shape]]
    step_seconds: Mapping[StepKind, float]  # of all listed shapes, those named at equal FLOPs included


@dataclass(frozen=True, kw_only=True)
class SecondsPlan:
    """The models to train at equal seconds, fixed before the first timed run."""

    budget_run: Rival  # the dense model sent at equal FLOPs: its cost is the budget
    rivals: Rivals
    budget_seconds: float  # as predicted by the timing trial
    edges: Mapping[Family, str]  # in words, where a chosen width is the last candidate on its side
    step_seconds: Mapping[StepKind, float]  # by the timing trial: of these rivals and of those at equal FLOPs


def time_candidates(
    lab: Lab, rates: RatesBy, law: Law | None, cells: Cells, at_flops: Mapping[Family, Nominees]
) -> Timing:
    """Time, in turns, the models named at equal FLOPs and those that profile and law predict to be best in seconds.

    Seconds favour other sizes than FLOPs do, so one rung beyond those that the grid trained is also a candidate.
    """
    dense, batch = at_flops["dense"].different(), lab.layout.batch
    expected = lab.profile.step_seconds(dense[0].shape, batch, lab.context).value * dense[0].steps
    considered: dict[Family, list[Shape]] = {
        family: candidates(lab.layout, cells, family, BEYOND) for family in at_flops
    }
    listed: dict[Family, list[Shape]] = {
        family: [
            *(rival.shape for rival in nominees.different()),
            *_shortlist(lab, law, considered[family], family, expected),
        ]
        for family, nominees in at_flops.items()
    }
    shapes = [*listed["dense"], *listed["sparse"]]
    timed = seconds_per_step(lab, rates, shapes, min(rival.steps for rival in dense), batch)
    return Timing(considered=considered, listed=listed, step_seconds=timed)


def seconds_nominees(
    lab: Lab, rates: RatesBy, law: Law | None, cells: Cells, timing: Timing, at_flops: Rivals
) -> dict[Family, Nominees]:
    """For the seconds of the dense model at equal FLOPs: the law's choice, and the best measured shape.

    A shape's measured loss at these seconds is that of its cell at the largest budget, moved to its tokens by the law.
    Without a law, or such a cell, the measured one is the shape sent at equal FLOPs. The optimizer that scans
    and law predict to be best comes first. The law is of the grid's; it is taken to order sizes alike with another one.
    """
    budget = timing.step_seconds[at_flops.dense.kind] * at_flops.dense.steps

    def option(sent: Rival, shape: Shape) -> Rival:
        steps = max(LEAST_STEPS, round(budget / timing.step_seconds[StepKind(shape, sent.optimizer)]))
        return replace(sent, shape=shape, steps=steps)

    def named(sent: Rival) -> Nominees:
        options = {shape: option(sent, shape) for shape in timing.listed[sent.family]}
        if law is None:
            return Nominees(law=None, measured=options[sent.shape])
        losses = {shape: predicted_loss(law, rival, lab.context) for shape, rival in options.items()}
        moved = {
            shape: result.bounded_loss + losses[shape] - law_loss(law, shape, result.run.tokens)
            for shape, result in _at_top(lab.layout, cells).items()
            if shape in options and result.loss is not None
        }
        best = min(losses, key=lambda shape: losses[shape])
        measured = min(moved, key=lambda shape: moved[shape], default=sent.shape)
        return Nominees(law=options[best], measured=options[measured])

    def by_all(sent: Rival) -> Nominees:
        def promise(nominees: Nominees) -> float:
            """The loss that law and scans predict; without a law, the optimizer of equal FLOPs promises most."""
            if law is None or nominees.law is None:
                return float(nominees.measured is not None and nominees.measured.optimizer != sent.optimizer)
            gain = scanned_gain(rates, sent.family, nominees.law.optimizer)
            return predicted_loss(law, nominees.law, lab.context) - gain

        every = (named(replace(sent, optimizer=optimizer)) for optimizer in lab.optimizers)
        first, *others = sorted(every, key=promise)
        return replace(first, by_others=tuple(others))

    return {rival.family: by_all(rival) for rival in at_flops.both()}


def _at_top(layout: Layout, cells: Cells) -> dict[Shape, CellResult]:
    return {layout.shape(cell): result for cell, result in cells.items() if cell.budget_flops == layout.budgets[-1]}


def plan_seconds(timing: Timing, at_flops: Rivals, rivals: Rivals) -> SecondsPlan:
    """The plan of the verdict at equal seconds, between the models that were sent."""
    winner = at_flops.dense
    found = {rival: edge(rival.shape, timing.considered[rival.family]) for rival in rivals.both()}
    return SecondsPlan(
        budget_run=winner,
        rivals=replace(rivals, dense=winner) if rivals.dense.kind == winner.kind else rivals,
        budget_seconds=timing.step_seconds[winner.kind] * winner.steps,
        edges={rival.family: words for rival, words in found.items() if words is not None},
        step_seconds=timing.step_seconds,
    )


def _shortlist(lab: Lab, law: Law | None, shapes: Sequence[Shape], family: Family, seconds: float) -> list[Shape]:
    """The shapes that the profile and the law predict to be best at these seconds; none without a law."""
    if law is None:
        return []
    return [answer.shape for answer in ranked(lab, law, shapes, "seconds", seconds)[: SHORTLIST[family]]]


def equal_seconds(
    lab: Lab,
    rates: RatesBy,
    plan: SecondsPlan,
    seeds: int,
    steps: TimedSteps | None = None,
    keep: Callable[[TimedSteps], None] = lambda steps: None,
) -> tuple[float, Pair]:
    """Train both rivals alone and in turns, seed by seed. Adjust steps once where a cost is over 3 % off the budget.

    The cost of the best dense model at equal FLOPs is the budget. It runs in turns with the rivals under the first
    seed, and there the steps are adjusted. Later changes of the machine's speed affect both rivals alike, so the budget
    moves with the dense one. A diverged run ends early, so its cost says nothing: the first seed whose runs all finish
    takes the first one's place, and the budget is the mean of the dense runs that finished.

    `steps` are those that an earlier start adjusted to: the budget's run was timed again after that, and its first time
    is no more. `keep` writes them down.

    Returns the budget in measured seconds, and the runs.
    """
    rivals, compared = plan.rivals, list[dict[Rival, Run]]()
    adjusted = steps and Rivals(
        dense=replace(rivals.dense, steps=steps.dense), sparse=replace(rivals.sparse, steps=steps.sparse)
    )
    if adjusted is None or adjusted == rivals:
        compared = _until_finished(lab, rates, plan, rivals, seeds)
        adjusted = adjusted or _adjusted(rivals, plan.budget_run, compared[-1])
        keep(TimedSteps(dense=adjusted.dense.steps, sparse=adjusted.sparse.steps))
    if adjusted != rivals:
        rivals = adjusted
        compared = _until_finished(lab, rates, plan, rivals, seeds, again=True)
    rounds = [*compared, *(_timed_round(lab, rates, rivals, seed) for seed in _seeds(seeds)[len(compared) :])]
    pair = Pair(dense=[runs[rivals.dense] for runs in rounds], sparse=[runs[rivals.sparse] for runs in rounds])
    return _budget_seconds(plan, rivals.dense, compared, pair), pair


def _until_finished(
    lab: Lab, rates: RatesBy, plan: SecondsPlan, rivals: Rivals, seeds: int, again: bool = False
) -> list[dict[Rival, Run]]:
    """Rounds with the budget's run beside the rivals, up to the first one of which all runs finish."""
    rounds: list[dict[Rival, Run]] = []
    for seed in _seeds(seeds):
        rounds.append(_timed_round(lab, rates, rivals, seed, plan.budget_run, again))
        if all(run.finished for run in rounds[-1].values()):
            break
    return rounds


def _adjusted(rivals: Rivals, budget_run: Rival, runs: Mapping[Rival, Run]) -> Rivals:
    """The rivals with as many steps as cost the same as the budget's run of their round, if all its runs finished."""

    def of(rival: Rival) -> Rival:
        ratio = runs[rival].seconds / runs[budget_run].seconds
        if rival == budget_run or abs(ratio - 1) <= COST_TOLERANCE:
            return rival
        return replace(rival, steps=max(LEAST_STEPS, round(rival.steps / ratio)))

    if not all(run.finished for run in runs.values()):
        return rivals
    return Rivals(dense=of(rivals.dense), sparse=of(rivals.sparse))


def _budget_seconds(plan: SecondsPlan, dense: Rival, compared: Sequence[Mapping[Rival, Run]], pair: Pair) -> float:
    """The mean cost of the dense runs, corrected by that of the budget's run; as predicted where none finished."""
    shares = [
        runs[plan.budget_run].seconds / runs[dense].seconds
        for runs in compared
        if runs[plan.budget_run].finished and runs[dense].finished
    ]
    finished = pair.finished().dense
    return shares[-1] * float(np.mean([run.seconds for run in finished])) if shares else plan.budget_seconds


def _timed_round(
    lab: Lab, rates: RatesBy, rivals: Rivals, seed: int, beside: Rival | None = None, again: bool = False
) -> dict[Rival, Run]:
    """Train both rivals with one seed, in turns; `beside` is a third run in the same turns, which sets the budget."""
    in_turn = [*rivals.both(), *([beside] if beside is not None else [])]
    tasks = {rival: verdict_task(lab, rates, rival, seed, True, again) for rival in in_turn}
    runs = lab.run_in_turn(tuple(tasks.values()))
    return {rival: runs[task.job.hash] for rival, task in tasks.items()}
