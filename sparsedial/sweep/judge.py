"""The verdict phase: the seeds that the time allows, the runs at equal FLOPs and at equal seconds, the verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from sparsedial.law.law import Law
from sparsedial.records.grid import RateModel
from sparsedial.records.study import VerdictSeeds
from sparsedial.records.verdict import Side, Verdict, Verdicts
from sparsedial.sweep.budgets import REPORT_SECONDS
from sparsedial.sweep.cells import Cells
from sparsedial.sweep.equal_cost import SecondsPlan, equal_flops, equal_seconds, plan_seconds
from sparsedial.sweep.expect import forward_seconds
from sparsedial.sweep.lab import Lab
from sparsedial.sweep.rivals import Rival, Rivals, flop_rivals, open_sides
from sparsedial.sweep.verdict import Pair, decide, undecided

GRACE_SHARE = 0.06  # of the time limit, by which the last runs of a verdict may overrun it
LEAST_SEEDS, MOST_SEEDS = 3, 5


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The models that a verdict compares, fixed before its first run."""

    flops: Rivals
    seconds: SecondsPlan
    open_sides: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The verdict of each currency, and the runs that it rests on."""

    verdicts: Verdicts
    seconds: Pair | None
    flops: Pair | None


def contest(lab: Lab, rates: RateModel, law: Law | None, cells: Cells) -> Contest:
    """Choose the rivals at the largest budget, and time the candidates for equal seconds."""
    budget = lab.layout.budgets[-1]
    rivals = flop_rivals(lab, law, cells, budget)
    return Contest(
        flops=rivals,
        seconds=plan_seconds(lab, rates, law, cells, rivals),
        open_sides=open_sides(cells, rivals, budget),
    )


def affordable_seeds(lab: Lab, asked: int | None, chosen: Contest) -> VerdictSeeds:
    """Seeds of each verdict that fit into the remaining time, at most five; 0 where three do not fit.

    The timed runs cost most, so they are dropped first. Stated seeds are used as they are.
    """
    if asked is not None or math.isinf(lab.clock.remaining):
        return VerdictSeeds(flops=lab.layout.seeds, seconds=lab.layout.seeds)
    timed, at_flops = chosen.seconds.rivals.both(), chosen.flops.both()

    def cost(rivals: Iterable[Rival]) -> float:
        """Seconds to train and to score one run of each."""
        steps = {rival: chosen.seconds.step_seconds[rival.shape] for rival in rivals}
        scored = sum(forward_seconds(lab.layout, step, lab.verdict_tokens) for step in steps.values())
        return scored + sum(step * rival.steps for rival, step in steps.items())

    one = cost(timed) + cost(rival for rival in at_flops if rival not in timed) / lab.workers
    more = 2 * cost({*timed, chosen.seconds.budget_run}) - cost(timed)  # the first round, which may be done again
    left, grace = lab.clock.remaining - REPORT_SECONDS, GRACE_SHARE * lab.clock.limit_seconds
    if more + LEAST_SEEDS * one <= left + grace:
        both = _between((left - more) // one)
        return VerdictSeeds(flops=both, seconds=both)
    beside = cost(at_flops) / lab.workers
    if LEAST_SEEDS * beside <= left + grace:
        return VerdictSeeds(flops=_between(left // beside), seconds=0)
    return VerdictSeeds(flops=0, seconds=0)


def _between(seeds: float) -> int:
    return int(min(MOST_SEEDS, max(LEAST_SEEDS, seeds)))


def judge(lab: Lab, rates: RateModel, law: Law | None, chosen: Contest, seeds: VerdictSeeds) -> Judged:
    """Train the rivals with new seeds and decide. Equal seconds come first: their dense runs serve both verdicts."""
    budget = lab.layout.budgets[-1]
    late = f"the time ran out before {LEAST_SEEDS} seeds of each family could be trained"
    flops, seconds = undecided("flops", late, budget), undecided("seconds", late)
    timed = beside = None
    if seeds.seconds:
        spent, timed = equal_seconds(lab, rates, chosen.seconds, seeds.seconds)
        seconds = decide("seconds", spent, timed, chosen.open_sides, chosen.seconds.edges, law)
    if seeds.flops:
        beside = equal_flops(lab, rates, chosen.flops, seeds.flops)
        flops = decide("flops", budget, beside, chosen.open_sides)
    watts, source = lab.meter.watts or lab.profile.watts, lab.meter.source
    flops, seconds = _with_checkpoints(lab, flops), _with_checkpoints(lab, seconds)
    verdicts = Verdicts(flops=flops, seconds=seconds, joules=joules_verdict(seconds, watts, source))
    return Judged(verdicts=verdicts, seconds=timed, flops=beside)


def joules_verdict(seconds: Verdict, watts: float, source: str) -> Verdict:
    """The verdict at equal joules where no meter is readable: the verdict at equal seconds, times stated watts."""
    if seconds.budget.value is None:
        return undecided("joules", seconds.reason, None, "estimated")

    def powered(side: Side | None) -> Side | None:
        return side and replace(
            side, joules=side.seconds * watts, joules_source=f"seconds times {watts:g} W ({source})"
        )

    return replace(
        seconds,
        sparse=powered(seconds.sparse),
        dense=powered(seconds.dense),
        budget=replace(seconds.budget, currency="joules", value=seconds.budget.value * watts),
        basis="estimated",
        reason=f"{seconds.reason}; no meter is readable:"
        f" this is the seconds' finding times {watts:g} W ({source})",
    )  # fmt: skip


def _with_checkpoints(lab: Lab, verdict: Verdict) -> Verdict:
    """The verdict with the path of its checkpoints: that of each side's first run."""

    def kept(side: Side | None) -> Side | None:
        return side and replace(side, checkpoint=str(lab.archive.checkpoint(side.runs[0])))

    return replace(verdict, sparse=kept(verdict.sparse), dense=kept(verdict.dense))
