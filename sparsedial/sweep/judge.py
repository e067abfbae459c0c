"""The verdict phase: who may compete, who is sent, the runs at equal FLOPs and at equal seconds, the verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from sparsedial.law.law import Law
from sparsedial.machine.profile import Profile
from sparsedial.records.quantities import Currency, Family
from sparsedial.records.study import TimedSteps, VerdictSeeds
from sparsedial.records.verdict import Side, Verdict, Verdicts
from sparsedial.sweep.cells import Cells
from sparsedial.sweep.equal_cost import (
    SecondsPlan,
    Timing,
    equal_flops,
    equal_seconds,
    plan_seconds,
    seconds_nominees,
    time_candidates,
)
from sparsedial.sweep.lab import Lab
from sparsedial.sweep.rates import RatesBy
from sparsedial.sweep.rivals import Nominees, Rivals, flop_nominees, open_sides
from sparsedial.sweep.selection import Sent, rivals_of, select
from sparsedial.sweep.verdict import Pair, decide, undecided

LEAST_SEEDS = 3  # of a verdict
MEASURED_IN_SECONDS = "the best cell of the grid, with its loss moved to these tokens by the law"
MEASURED_WITHOUT_LAW = "the shape sent at equal FLOPs"
OF_TIMED_RUNS = "these are the runs at equal seconds, by the joules that they were metered to use"


@dataclass(frozen=True, kw_only=True)
class Named:
    """What each family may send at equal FLOPs, and the seconds of a step of it and of candidates for equal seconds."""

    at_flops: Mapping[Family, Nominees]
    timing: Timing


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The models that a verdict compares, fixed before its first run."""

    flops: Rivals
    seconds: SecondsPlan
    open_sides: Sequence[str]
    sent: Mapping[Currency, Mapping[Family, Sent]]  # how they were chosen, at equal FLOPs and at equal seconds


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The verdict of each currency, and the runs that it rests on."""

    verdicts: Verdicts
    seconds: Pair | None
    flops: Pair | None


def name_rivals(lab: Lab, rates: RatesBy, law: Law | None, cells: Cells) -> Named:
    """Name the models of both families at the largest budget, and time the candidates for equal seconds."""
    nominees = flop_nominees(lab, rates, law, cells, lab.layout.budgets[-1])
    return Named(at_flops=nominees, timing=time_candidates(lab, rates, law, cells, nominees))


def contest(lab: Lab, rates: RatesBy, law: Law | None, cells: Cells, named: Named, selection: VerdictSeeds) -> Contest:
    """Choose the rivals among the named ones on validation text, first at equal FLOPs, then at equal seconds."""
    at_flops = select(lab, rates, law, named.at_flops, selection.flops)
    rivals = rivals_of(at_flops)
    nominees = seconds_nominees(lab, rates, law, cells, named.timing, rivals)
    at_seconds = select(
        lab, rates, law, nominees, selection.seconds, MEASURED_IN_SECONDS if law else MEASURED_WITHOUT_LAW
    )
    return Contest(
        flops=rivals,
        seconds=plan_seconds(named.timing, rivals, rivals_of(at_seconds)),
        open_sides=open_sides(cells, rivals, lab.layout.budgets[-1]),
        sent={"flops": at_flops, "seconds": at_seconds},
    )


def judge(
    lab: Lab,
    rates: RatesBy,
    law: Law | None,
    chosen: Contest,
    seeds: VerdictSeeds,
    steps: TimedSteps | None = None,
    keep: Callable[[TimedSteps], None] = lambda steps: None,
) -> Judged:
    """Train the rivals with new seeds and decide. Equal seconds come first: their dense runs serve both verdicts.

    `steps` and `keep` are those of `equal_seconds`.
    """
    budget = lab.layout.budgets[-1]
    late = f"the time ran out before {LEAST_SEEDS} seeds of each family could be trained"
    flops, seconds = undecided("flops", late, budget), undecided("seconds", late)
    timed = beside = None
    if seeds.seconds:
        spent, timed = equal_seconds(lab, rates, chosen.seconds, seeds.seconds, steps, keep)
        seconds = decide("seconds", spent, timed, chosen.open_sides, chosen.seconds.edges, law)
    if seeds.flops:
        beside = equal_flops(lab, rates, chosen.flops, seeds.flops)
        flops = decide("flops", budget, beside, chosen.open_sides)
    joules = joules_verdict(lab, seconds, timed, chosen, law)
    flops, seconds = _with_origin(lab, flops, chosen.sent["flops"]), _with_origin(lab, seconds, chosen.sent["seconds"])
    joules = _with_origin(lab, joules, chosen.sent["seconds"])
    verdicts = Verdicts(flops=flops, seconds=seconds, joules=joules)
    return Judged(verdicts=verdicts, seconds=timed, flops=beside)


def joules_verdict(lab: Lab, seconds: Verdict, timed: Pair | None, chosen: Contest, law: Law | None) -> Verdict:
    """The verdict at equal joules: that of the runs at equal seconds, none are trained for it.

    Where all of them were metered it is decided from their joules. The budget is what the dense runs used; where the
    sparse ones used another amount, that counts as any cost off its budget does. Else it is the verdict at equal
    seconds, times watts.
    """
    budget = None if timed is None else _dense_joules(timed.finished())
    if timed is None or budget is None:
        return _estimated(seconds, lab.profile)
    verdict = decide("joules", budget, timed, chosen.open_sides, chosen.seconds.edges, law)
    return replace(verdict, reason=f"{verdict.reason}; {OF_TIMED_RUNS}")


def _dense_joules(pair: Pair) -> float | None:
    """The mean joules of a pair's dense runs; None where a run of either family was not metered, or there is none."""
    if not pair.seeds or any(run.joules is None for run in (*pair.dense, *pair.sparse)):
        return None
    return float(np.mean([run.joules or 0.0 for run in pair.dense]))


def _estimated(seconds: Verdict, profile: Profile) -> Verdict:
    """The verdict at equal joules where the runs were not metered: the verdict at equal seconds, times watts."""
    if seconds.budget.value is None or profile.no_power:
        return undecided("joules", profile.no_power or seconds.reason, None, "estimated")
    power = f"{profile.watts:.3g} W ({profile.watts_source})"
    why = "the runs were not metered" if profile.metered else "no meter is readable"

    def powered(side: Side | None) -> Side | None:
        return side and replace(side, joules=side.seconds * profile.watts, joules_source=f"seconds times {power}")

    return replace(
        seconds,
        sparse=powered(seconds.sparse),
        dense=powered(seconds.dense),
        budget=replace(seconds.budget, currency="joules", value=seconds.budget.value * profile.watts),
        basis="estimated",
        reason=f"{seconds.reason}; {why}: this is the seconds' finding times {power}",
    )


def _with_origin(lab: Lab, verdict: Verdict, sent: Mapping[Family, Sent]) -> Verdict:
    """The verdict with the path of its checkpoints, that of each side's first run, and with why each side was sent."""

    def origin(side: Side | None, chosen: Sent) -> Side | None:
        path = side and str(lab.archive.checkpoint(side.runs[0]))
        return side and replace(side, checkpoint=path, named_by=chosen.named_by, sent_because=chosen.because)

    return replace(verdict, sparse=origin(verdict.sparse, sent["sparse"]), dense=origin(verdict.dense, sent["dense"]))
