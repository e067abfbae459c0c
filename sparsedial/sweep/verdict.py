"""The verdict: dense minus sparse at equal cost, with Welch's interval over fresh seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparsedial.law.law import Law
from sparsedial.records.quantities import Amount, Currency, Family, Gap, Interval
from sparsedial.records.run import Run
from sparsedial.records.verdict import Basis, CostMiss, Side, Verdict
from sparsedial.units import human_cost, signed

CONFIDENCE = 0.95
COST_TOLERANCE = 0.03
MOST_MISS = 0.1  # of the budget; a larger miss is not converted into nats by the law


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The runs of both families at one budget, in the order of their seeds."""

    dense: Sequence[Run]
    sparse: Sequence[Run]

    def finished(self) -> Pair:
        """The runs that did not diverge."""
        return Pair(
            dense=[run for run in self.dense if run.finished], sparse=[run for run in self.sparse if run.finished]
        )

    def of(self, family: Family) -> Sequence[Run]:
        """The runs of one family."""
        return self.dense if family == "dense" else self.sparse

    @property
    def seeds(self) -> int:
        """Runs of the family that has fewer."""
        return min(len(self.dense), len(self.sparse))


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Mean with Student's t interval; without an interval for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean=mean, low=None, high=None)
    half = t_quantile(confidence, len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Interval(mean=mean, low=mean - half, high=mean + half)


def welch_gap(dense: Sequence[float], sparse: Sequence[float], confidence: float = CONFIDENCE) -> Gap:
    """Dense minus sparse mean loss with Welch's t interval; needs two seeds in each family.

    Source: Welch 1947, Biometrika 34
    """
    gap = float(np.mean(dense) - np.mean(sparse))
    parts = [float(np.var(values, ddof=1)) / len(values) for values in (dense, sparse)]
    error = math.sqrt(sum(parts))
    if error == 0:
        return Gap(mean=gap, low=gap, high=gap)
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (dense, sparse), strict=True)
    )
    half = t_quantile(confidence, freedom) * error
    return Gap(mean=gap, low=gap - half, high=gap + half)


def t_quantile(confidence: float, freedom: float) -> float:
    """Half the width of Student's t interval, in standard errors."""
    from scipy.special import stdtrit  # pyright: ignore  # scipy has no types; `scipy.stats` takes a second to load

    return float(stdtrit(freedom, (1 + confidence) / 2))


def undecided(currency: Currency, reason: str, budget: float | None = None, basis: Basis = "measured") -> Verdict:
    """The verdict `undecided`, with its reason."""
    return Verdict(
        winner="undecided",
        reason=reason,
        budget=Amount(currency=currency, value=budget),
        sparse=None,
        dense=None,
        gap=None,
        confidence=CONFIDENCE,
        seeds=0,
        basis=basis,
        cost_miss=None,
    )


def decide(
    currency: Currency,
    budget: float,
    pair: Pair,
    open_sides: Sequence[str],
    edges: Mapping[Family, str] | None = None,
    law: Law | None = None,
) -> Verdict:
    """The verdict of one currency, from the runs of both families with one run per seed.

    The verdict is `undecided` where

    * fewer than two seeds of a family finished (diverged runs do not count);
    * the interval of the gap contains 0;
    * a minimum was not bracketed (`open_sides` says which);
    * the loser's size was the last candidate (`edges` by family). The winner's may be: a better size would only win
      by more;
    * the winner cost over 3 % more than the budget, or the loser over 3 % less. With a law, a cost up to 10 % off is
      allowed if the interval still excludes 0 after subtracting what the misses explain by the law.

    The reason names every obstacle.
    """
    pair = pair.finished()
    if pair.seeds < 2:
        return undecided(currency, "fewer than two seeds of each family finished", budget)
    gap = welch_gap(_test_losses(pair.dense), _test_losses(pair.sparse))
    better: Family = "sparse" if gap.mean > 0 else "dense"
    worse: Family = "dense" if gap.mean > 0 else "sparse"
    misses = _cost_misses(currency, budget, pair, better)
    nats = _worth_of(misses, law, pair)
    surplus = max(gap.low, -gap.high)  # distance from 0 to the nearer end of the interval; negative where 0 is inside
    missed = " and ".join(_miss_words(misses)) if misses else None
    unexcused = [missed] if missed and not (nats is not None and nats < surplus) else []
    obstacles = [*open_sides, *([edges[worse]] if edges and worse in edges else []), *unexcused]
    won = surplus > 0 and not obstacles
    return Verdict(
        winner=better if won else "undecided",
        reason=_reason(currency, budget, gap, better, obstacles),
        budget=Amount(currency=currency, value=budget),
        sparse=side(pair.sparse),
        dense=side(pair.dense),
        gap=gap,
        confidence=CONFIDENCE,
        seeds=pair.seeds,
        basis="measured",
        cost_miss=CostMiss(words=missed, worth_nats=nats) if missed else None,
    )


def _test_losses(runs: Sequence[Run]) -> list[float]:
    return [run.test_loss for run in runs if run.test_loss is not None]


def _reason(currency: Currency, budget: float, gap: Gap, better: Family, obstacles: Sequence[str]) -> str:
    interval = f"95 % interval of dense minus sparse {signed(gap.low, '.4f')} to {signed(gap.high, '.4f')}"
    spread = f"{abs(gap.mean):.4f} nats per token ({interval})"
    if gap.low <= 0 <= gap.high:
        besides = f"; besides, {'; '.join(obstacles)}" if obstacles else ""
        return f"the interval of the gap holds 0: {better} is ahead by {spread}{besides}"
    if obstacles:
        return f"{better} is ahead by {spread}, but " + "; ".join(obstacles)
    return f"{better} is better by {spread} at {human_cost(currency, budget)}"


def _cost_misses(currency: Currency, budget: float, pair: Pair, better: Family) -> dict[Family, float]:
    """By family, the share by which its cost misses the budget in the better family's favour, if that is over 3 %."""
    misses: dict[Family, float] = {}
    families: tuple[Family, Family] = ("dense", "sparse")
    for family in families:
        costs = [cost for run in pair.of(family) if (cost := run.cost(currency)) is not None]
        excess = float(np.mean(costs)) / budget - 1 if costs else math.nan
        if not (excess if family == better else -excess) <= COST_TOLERANCE:
            misses[family] = excess
    return misses


def _miss_words(misses: Mapping[Family, float]) -> list[str]:
    return [f"the {family} runs cost {_off_words(excess)}" for family, excess in misses.items()]


def _off_words(excess: float) -> str:
    if math.isnan(excess):
        return "an amount that is not known"
    return f"{100 * abs(excess):.3g} % {'more' if excess > 0 else 'less'} than the budget"


def _worth_of(misses: Mapping[Family, float], law: Law | None, pair: Pair) -> float | None:
    """Nats that the missed costs may explain, by the law; None without a law, or where a miss is too large."""
    if law is None or not all(abs(excess) <= MOST_MISS for excess in misses.values()):
        return None
    return sum(nats_per_efold(law, pair.of(family)[0]) * abs(math.log1p(excess)) for family, excess in misses.items())


def nats_per_efold(law: Law, run: Run) -> float:
    """By the law, how much the loss of a run falls when its tokens, and so its cost, grow by a factor of e."""
    factors = (1.0, math.e**0.05)
    less, more = (law.loss(**law.variables(run.shape, run.tokens * factor)) for factor in factors)
    return (less - more) / 0.05


def side(runs: Sequence[Run]) -> Side:
    """One family in a verdict: its shape, and means over its seeds."""
    first = runs[0]
    joules = [run.joules for run in runs if run.joules is not None]
    return Side(
        shape=first.shape,
        sparsity=first.sparsity,
        tokens=first.tokens,
        total_parameters=first.total_parameters,
        active_parameters=first.active_parameters,
        loss=mean_interval(_test_losses(runs)),
        bits_per_byte=float(np.mean([run.test_bits_per_byte for run in runs if run.test_bits_per_byte is not None])),
        flops=float(np.mean([run.flops for run in runs])),
        seconds=float(np.mean([run.seconds for run in runs])),
        joules=float(np.mean(joules)) if joules else None,
        joules_source=first.joules_source,
        optimizer=first.recipe.optimizer,
        learning_rate=first.recipe.learning_rate,
        checkpoint=None,  # set later: only the study knows its folder
        runs=tuple(run.hash for run in runs),
    )
