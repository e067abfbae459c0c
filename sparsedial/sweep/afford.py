"""What the remaining time allows: seeds of the runs that choose a verdict's rivals, of the verdict, runs on shares."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sparsedial.law.law import Law
from sparsedial.records.kept import KeptRuns
from sparsedial.records.quantities import Family
from sparsedial.records.study import VerdictSeeds
from sparsedial.runs.policy import done
from sparsedial.sweep.at_once import RunCost
from sparsedial.sweep.budgets import BESIDE_FACTOR, REPORT_SECONDS, SELECTION_SEEDS, beside_seconds, between_phases
from sparsedial.sweep.cells import Cells
from sparsedial.sweep.crossing import Crossing, KeptText
from sparsedial.sweep.equal_cost import seconds_nominees
from sparsedial.sweep.judge import LEAST_SEEDS, Contest, Named
from sparsedial.sweep.kept import AtBudget, paying_models, share_tasks
from sparsedial.sweep.lab import Lab
from sparsedial.sweep.rates import RatesBy
from sparsedial.sweep.rivals import Nominees, Rival, Rivals, StepKind

GRACE_SHARE = 0.06  # of the time limit, by which the last runs of a verdict may overrun it
MOST_SEEDS = 5


@dataclass(frozen=True, kw_only=True)
class _Needs:
    """Seconds of a verdict's parts."""

    one: float  # a seed of both verdicts
    more: float  # beside the seeds: the first timed round, which may be done again
    beside: float  # a seed at equal FLOPs alone

    def both(self, seeds: int) -> float:
        """Seconds of both verdicts with so many seeds."""
        return self.more + seeds * self.one


def affordable_seeds(lab: Lab, asked: int | None, chosen: Contest) -> VerdictSeeds:
    """Seeds of each verdict that fit into the remaining time, at most five; 0 where three do not fit.

    The timed runs cost most, so they are dropped first. Stated seeds are used as they are.
    """
    if asked is not None or math.isinf(lab.clock.remaining):
        return VerdictSeeds(flops=lab.layout.seeds, seconds=lab.layout.seeds)
    needs = _needs(lab, chosen.seconds.step_seconds, chosen.flops, chosen.seconds.rivals)
    left, grace = _left(lab), GRACE_SHARE * lab.clock.limit_seconds
    beyond_shares = left - lab.keep_for_shares_seconds  # pays for more seeds than the fewest
    if needs.both(LEAST_SEEDS) <= left + grace:
        both = _between((beyond_shares - needs.more) // needs.one)
        return VerdictSeeds(flops=both, seconds=both)
    if LEAST_SEEDS * needs.beside <= left + grace:
        return VerdictSeeds(flops=_between(beyond_shares // needs.beside), seconds=0)
    return VerdictSeeds(flops=0, seconds=0)


def affordable_selection(
    lab: Lab, asked: int | None, rates: RatesBy, law: Law | None, cells: Cells, named: Named
) -> VerdictSeeds:
    """Seeds of the runs that choose the rivals at equal FLOPs and at equal seconds; 0 where time is short.

    The verdict comes first, with its fewest seeds or the stated ones. What is left of the time, and no grace, pays for
    the choice at equal FLOPs and then for that at equal seconds.
    """
    most = SELECTION_SEEDS
    if math.isinf(lab.clock.remaining):
        return VerdictSeeds(flops=most, seconds=most)
    step_seconds, seeds = named.timing.step_seconds, LEAST_SEEDS if asked is None else asked
    verdicts: list[_Needs] = []
    later: list[tuple[Mapping[Family, Nominees], list[Rival]]] = []  # what may be tried at equal seconds, but for some
    for dense, sparse in itertools.product(*(named.at_flops[family].different() for family in ("dense", "sparse"))):
        rivals = Rivals(dense=dense, sparse=sparse)
        nominees = seconds_nominees(lab, rates, law, cells, named.timing, rivals)
        timed = Rivals(dense=nominees["dense"].different()[0], sparse=nominees["sparse"].different()[0])
        verdicts.append(_needs(lab, step_seconds, rivals, timed))
        trained = [rival for both in named.at_flops.values() if len(both.different()) > 1 for rival in both.different()]
        later.append((nominees, trained))
    left, grace = _left(lab) - lab.keep_for_shares_seconds, GRACE_SHARE * lab.clock.limit_seconds
    both, flops = (
        max(needs.both(seeds) for needs in verdicts),
        max(seeds * needs.beside for needs in verdicts),
    )
    fewest = most if len(lab.optimizers) == 1 else 1  # of optimizers the better one shows with one seed each
    for tried in range(most, fewest - 1, -1):
        at_flops = _selection_seconds(lab, step_seconds, named.at_flops, (), tried)
        at_seconds = max(_selection_seconds(lab, step_seconds, *one, tried) for one in later)
        if both + at_flops + at_seconds <= left:
            return VerdictSeeds(flops=tried, seconds=tried)
    for tried in range(most, fewest - 1, -1):
        at_flops = _selection_seconds(lab, step_seconds, named.at_flops, (), tried)
        if both + at_flops <= left or (both > left + grace and flops + at_flops <= left):
            return VerdictSeeds(flops=tried, seconds=0)
    return VerdictSeeds(flops=0, seconds=0)


def _left(lab: Lab) -> float:
    return lab.clock.remaining - REPORT_SECONDS


def _between(seeds: float) -> int:
    return int(min(MOST_SEEDS, max(LEAST_SEEDS, seeds)))


def _needs(lab: Lab, step_seconds: Mapping[StepKind, float], at_flops: Rivals, timed: Rivals) -> _Needs:
    def alone(rivals: Iterable[Rival]) -> float:
        return sum(_cost(lab, step_seconds, rival, lab.verdict_tokens).seconds for rival in rivals)

    def shared(rivals: Iterable[Rival]) -> float:
        return sum(lab.shared_seconds(_cost(lab, step_seconds, rival, lab.verdict_tokens)) for rival in rivals)

    one = alone(timed.both()) + shared(rival for rival in at_flops.both() if rival not in timed.both())
    first = 2 * alone({*timed.both(), at_flops.dense}) - alone(timed.both())
    return _Needs(one=one, more=first, beside=shared(at_flops.both()))


def _selection_seconds(
    lab: Lab,
    step_seconds: Mapping[StepKind, float],
    nominees: Mapping[Family, Nominees],
    trained: Collection[Rival],
    seeds: int,
) -> float:
    """Seconds of the runs that choose between nominees, on the study's workers; those of `trained` were done before."""
    contested = [both.different() for both in nominees.values() if len(both.different()) > 1]
    wanted = [rival for both in contested for rival in both if rival not in trained]
    if not wanted:
        return 0.0
    runs = [_cost(lab, step_seconds, rival, lab.evaluation_tokens, beside_seconds(lab.profile)) for rival in wanted]
    longest = max(run.seconds for run in runs)
    return between_phases(lab.profile) + BESIDE_FACTOR * max(seeds * sum(map(lab.shared_seconds, runs)), longest)


def _cost(
    lab: Lab, step_seconds: Mapping[StepKind, float], rival: Rival, scored_tokens: int, beside: float = 0.0
) -> RunCost:
    """Seconds to train and to score one run."""
    return lab.run_cost(step_seconds[rival.kind], rival.steps, scored_tokens, beside)


def affordable_shares(lab: Lab, rates: RatesBy, models: AtBudget, slowdown: float) -> KeptRuns:
    """The runs on shares of the text that fit into the remaining time, on a machine so much slower than measured.

    What pays for the selection is left out first, and then the largest budget. What was trained before costs nothing.
    """
    crossing, budgets = lab.crossing, tuple(sorted(models))
    assert crossing is not None
    options = [KeptRuns(budgets_flops=some, at_equal_total=False) for some in (budgets, budgets[:1], ())]
    if crossing.left(budgets[-1]):
        options.insert(0, KeptRuns(budgets_flops=budgets, at_equal_total=True))
    left = _left(lab) + GRACE_SHARE * lab.clock.limit_seconds
    fitting = (one for one in options if slowdown * _shares_seconds(lab, rates, models, one, crossing) <= left)
    return next(fitting, options[-1])


def _shares_seconds(lab: Lab, rates: RatesBy, models: AtBudget, wanted: KeptRuns, crossing: Crossing) -> float:
    """Seconds to train and to score runs on shares, share by share, by the machine's profile."""
    at = {budget: models[budget] for budget in wanted.budgets_flops}
    parts: list[tuple[AtBudget, Sequence[KeptText]]] = [(at, crossing.texts)]
    if wanted.at_equal_total:
        parts.append((paying_models(lab, models), crossing.texts[1:]))
    return sum(_text_seconds(lab, rates, some, text) for some, texts in parts for text in texts)


def _text_seconds(lab: Lab, rates: RatesBy, models: AtBudget, text: KeptText) -> float:
    waiting = [task.job for task in share_tasks(lab, rates, models, text).values() if done(task, lab.archive) is None]
    if not waiting:
        return 0.0
    steps = [float(lab.profile.step_seconds(job.shape, job.recipe.batch, lab.context).value) for job in waiting]
    runs = [
        lab.run_cost(step, job.recipe.steps, lab.verdict_tokens, beside_seconds(lab.profile))
        for step, job in zip(steps, waiting, strict=True)
    ]
    longest = max(run.seconds for run in runs)
    return between_phases(lab.profile) + BESIDE_FACTOR * (sum(map(lab.shared_seconds, runs)) + longest / 2)
