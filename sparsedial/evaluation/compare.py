"""Two models, or two settings of one, on the same items."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from sparsedial.evaluation.domains import Units
from sparsedial.evaluation.statistics import interval, ratio_interval
from sparsedial.records.evaluation import PairedDifference

SIGN_FLIPS, BATCH = 10_000, 1000
EXACT_GROUPS = 13  # the most of which all sign flips are tried: fewer than the drawn ones


@dataclass(frozen=True)
class Values:
    """A metric's value for each item of a task, by the item's number; items of one group share a document."""

    metric: str
    of: Mapping[int, float]
    group: Mapping[int, Hashable]


def difference(first: Values, second: Values, seed: int = 0) -> PairedDifference | None:
    """The mean of second minus first over the items that both have, with a 95 % interval over groups of items.

    `p_value`, two-sided: how often a difference so large comes about where the two are the same and only chance says
    which value is whose in each group: a sign-flip permutation test of the mean. It is exact for few groups, and where
    all groups that differ do so by the same amount (McNemar's test).
    None where they share no item.
    """
    items = sorted(set(first.of) & set(second.of))
    if not items:
        return None
    apart = np.array([second.of[item] - first.of[item] for item in items])
    groups = [str(first.group[item]) for item in items]
    found = interval(apart.tolist(), groups)
    return PairedDifference(
        mean=found.mean,
        low=found.low,
        high=found.high,
        items=len(items),
        p_value=_p_value(_sums(apart, groups), seed),
    )


def loss_difference(first: Units, second: Units, seed: int = 0) -> PairedDifference | None:
    """The loss of second minus first on the same documents or windows, as `difference`; None where they are others.

    Units: nats per token
    """
    if not np.array_equal(first.tokens, second.tokens):
        return None
    apart = second.nats - first.nats
    found = ratio_interval(apart, first.tokens)
    return PairedDifference(
        mean=found.mean, low=found.low, high=found.high, items=len(apart), p_value=_p_value(apart, seed)
    )


def _sums(values: np.ndarray, groups: list[str]) -> np.ndarray:
    numbers = np.unique(groups, return_inverse=True)[1]
    return np.bincount(numbers, weights=values)


def _p_value(sums: np.ndarray, seed: int) -> float:
    """Of a sign-flip permutation test: by all flips of few groups, else by drawn ones."""
    differing: Any = sums[np.abs(sums) > 1e-12]
    if not len(differing):
        return 1.0
    if np.allclose(np.abs(differing), abs(differing[0]), rtol=1e-9):
        return float(stats.binomtest(int((differing > 0).sum()), len(differing)).pvalue)
    if len(differing) <= EXACT_GROUPS:
        return float(_reaching(_all_signs(len(differing)), differing).mean())
    draw, reached = np.random.default_rng(seed), 0
    for _ in range(SIGN_FLIPS // BATCH):
        signs = draw.choice([-1.0, 1.0], (BATCH, len(differing)))
        reached += int(_reaching(signs, differing).sum())
    return (1 + reached) / (1 + SIGN_FLIPS)


def _all_signs(groups: int) -> np.ndarray:
    """Every choice of a sign for each group, as rows."""
    return 1.0 - 2.0 * (np.arange(2**groups)[:, None] >> np.arange(groups) & 1)


def _reaching(signs: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Which choices of signs make the sum as large as it is; sums that only rounding tells apart are equal."""
    return np.abs(signs @ sums) >= abs(sums.sum()) - 1e-12 * np.abs(sums).sum()
