"""How sure scores are: intervals over items, and the chance that guessing scores as well."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy import stats

from sparsedial.records.quantities import Interval

RESAMPLES, CONFIDENCE = 1000, 0.95
DRAWN_AT_ONCE = 2**18  # items
NO_BETTER = 0.05  # a score that guessing reaches more often than this is at chance


def interval(
    values: Sequence[Any],
    groups: Sequence[Any],
    aggregate: Callable[[list[Any]], float] | None = None,
    seed: int = 0,
) -> Interval:
    """A metric over items with its 95 % interval, by a bootstrap over groups of items that share a document.

    `aggregate` makes the metric from items' values; by default it is their mean. The ends are null for one group,
    and where all groups are alike.
    """
    numbers = np.unique([str(group) for group in groups], return_inverse=True)[1]
    members = [np.flatnonzero(numbers == number).tolist() for number in range(numbers.max(initial=-1) + 1)]
    whole = _metric(values, aggregate)
    if len(members) < 2:
        return Interval(mean=whole, low=None, high=None)
    if aggregate is None:
        sums = np.array([sum(values[int(item)] for item in items) for items in members], dtype=float)
        return ratio_interval(sums, np.array([len(items) for items in members]), seed)
    found = [
        _metric([values[item] for number in row for item in members[number]], aggregate)
        for rows in _drawn(len(members), seed)
        for row in rows
    ]
    return _between(whole, np.array(found))


def ratio_interval(parts: np.ndarray, wholes: np.ndarray, seed: int = 0) -> Interval:
    """The sum of the parts over the sum of the wholes with its 95 % interval, by a bootstrap over pairs of the two.

    The ends are null for one pair.
    """
    mean = float(parts.sum() / wholes.sum())
    if len(parts) < 2:
        return Interval(mean=mean, low=None, high=None)
    sums = [(parts[rows].sum(axis=1), wholes[rows].sum(axis=1)) for rows in _drawn(len(parts), seed)]
    over, under = np.concatenate(sums, axis=1)
    return _between(mean, over[under > 0] / under[under > 0])


def _drawn(count: int, seed: int) -> Iterator[np.ndarray]:
    """All resamples of so many, a few at a time."""
    draw, rows = np.random.default_rng(seed), max(1, DRAWN_AT_ONCE // count)
    for start in range(0, RESAMPLES, rows):
        yield draw.integers(0, count, (min(rows, RESAMPLES - start), count))


def _between(mean: float, found: np.ndarray) -> Interval:
    """A mean and the middle 95 % of what was found; without ends where all of it is one value."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    if low == high:
        return Interval(mean=mean, low=None, high=None)
    return Interval(mean=mean, low=float(low), high=float(high))


def _metric(values: Sequence[Any], aggregate: Callable[[list[Any]], float] | None) -> float:
    return float(np.mean(values)) if aggregate is None else float(aggregate(list(values)))


def p_of_chance(right: int, items: int, chance: float) -> float:
    """How often guessing gets at least so many of the items right: the exact binomial test, one-sided."""
    return float(stats.binomtest(right, items, chance, alternative="greater").pvalue)


def p_of_chance_by_group(right: Sequence[float], groups: Sequence[Any], chance: float) -> float | None:
    """The same for items of which some share a document, as a model may get those right or wrong together.

    It is the larger of the binomial test's and that of a one-sided t test of how many items of each document are right
    beyond chance. None for a single document.
    """
    of_items = p_of_chance(round(sum(right)), len(right), chance)
    numbers = np.unique([str(group) for group in groups], return_inverse=True)[1]
    beyond = np.bincount(numbers, weights=np.asarray(right) - chance)
    if len(beyond) == len(right):
        return of_items
    if len(beyond) < 2:
        return None
    error = float(np.std(beyond, ddof=1)) / math.sqrt(len(beyond))
    of_documents = float(stats.t.sf(float(np.mean(beyond)) / error, len(beyond) - 1)) if error > 0 else 0.0
    return max(of_items, of_documents)


def share_interval(right: int, items: int) -> Interval:
    """The share of items that are right, with its exact 95 % interval.

    Source: Clopper and Pearson 1934, Biometrika 26
    """
    found = stats.binomtest(right, items).proportion_ci(CONFIDENCE, method="exact")
    return Interval(mean=right / items, low=float(found.low), high=float(found.high))
