"""Differences between runs that share their seed: what the seed does to both cancels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparsedial.records.evaluation import PairedDifference
from sparsedial.records.run import Run
from sparsedial.sweep.verdict import CONFIDENCE, t_quantile

Losses = Mapping[int, float]  # by seed, of the runs that finished


@dataclass(frozen=True, kw_only=True)
class SeededRuns:
    """Runs that differ in their seed alone, by seed."""

    runs: Mapping[int, Run]

    @property
    def finished(self) -> dict[int, Run]:
        """Those that did not diverge."""
        return {seed: run for seed, run in self.runs.items() if run.finished}

    @property
    def test_losses(self) -> Losses:
        """Nats per token, of those that did not diverge."""
        return {seed: run.test_loss for seed, run in self.finished.items() if run.test_loss is not None}


def paired_difference(ours: Losses, theirs: Losses) -> PairedDifference | None:
    """The mean of ours minus theirs over the seeds that both have; None for fewer than two.

    Source: Student 1908, Biometrika 6
    """
    return mean_difference([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])


def mean_difference(apart: Sequence[float], comparisons: int = 1) -> PairedDifference | None:
    """The mean of differences with Student's t interval, and the two-sided p-value of no difference.

    With several `comparisons` the intervals hold all together, by Bonferroni.

    None for fewer than two. The ends are null where all differences are alike, as where both sides are one model.
    """
    if len(apart) < 2:
        return None
    mean, error = float(np.mean(apart)), float(np.std(apart, ddof=1)) / math.sqrt(len(apart))
    if error == 0:
        return PairedDifference(mean=mean, low=None, high=None, items=len(apart), p_value=1.0)
    half = t_quantile(1 - (1 - CONFIDENCE) / comparisons, len(apart) - 1) * error
    p_value = min(1.0, comparisons * _p_value(mean / error, len(apart) - 1))
    return PairedDifference(mean=mean, low=mean - half, high=mean + half, items=len(apart), p_value=p_value)


def is_below(difference: PairedDifference | None) -> bool:
    """Whether the whole interval lies below 0."""
    return difference is not None and difference.high is not None and difference.high < 0


def is_above(difference: PairedDifference | None) -> bool:
    """Whether the whole interval lies above 0."""
    return difference is not None and difference.low is not None and difference.low > 0


def _p_value(t: float, freedom: int) -> float:
    from scipy.special import stdtr  # pyright: ignore  # scipy has no types; `scipy.stats` takes a second to load

    return 2 * float(stdtr(freedom, -abs(t)))
