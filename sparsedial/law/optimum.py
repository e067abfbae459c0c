"""The best size and tokens for a budget by a law, and how they grow with the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparsedial.law.beyond import times_beyond
from sparsedial.law.fence import open_axes
from sparsedial.law.fit import Rows
from sparsedial.law.law import Law
from sparsedial.law.parabola import parabolas
from sparsedial.law.splits import Split, splits
from sparsedial.records.optimum import Allocation, BestAt, Estimate

AHEAD = 10.0  # by default the largest budget of the table is asked, and this many times it
REACH = 12.0  # in log size to either side of as many parameters as tokens: a ratio of 1e-10 to 1e10
COARSE, FINE, ROUNDS = 97, 9, 12  # points of the first grid, of each finer one, and how many of these


def allocations(
    law: Law, rows: Rows, at: Sequence[float] | None = None
) -> tuple[tuple[Allocation, ...] | None, str | None]:
    """How the law splits budgets, at each sparsity of the table that it was fitted to; or the reason why it cannot.

    `at` are the budgets to answer for; by default the largest of the table, and ten times it.
    """
    found = splits(law, rows)
    if isinstance(found, str):
        return None, found
    axes = open_axes(law)
    open_ = dict.fromkeys(name for axis in ("size", "tokens") for name in axes.get(axis, ()))
    if open_:
        them = "it" if len(open_) == 1 else "them"
        return None, f"the runs leave {', '.join(open_)} open, and the best size depends on {them}"
    return tuple(_allocation(law, rows, split, at) for split in found), None


def _allocation(law: Law, rows: Rows, split: Split, at: Sequence[float] | None) -> Allocation:
    search = _Search(law, split)
    low, high = split.budgets
    exponent = search.exponent(low, high if high > low else AHEAD * low)
    curves, no_curves = parabolas(law, rows, split)
    asked = (search.best_at(budget) for budget in at or (high, AHEAD * high))
    best = tuple(found for found in asked if found is not None)
    return Allocation(
        held=split.held,
        size=split.size,
        flops_factor=split.factor,
        flops_factors=split.factors,
        budgets_flops=split.budgets,
        size_exponent=exponent,
        tokens_exponent=None if exponent is None else _rest(exponent),
        at=best or None,
        at_reason=None
        if best
        else "by this law, loss on a fixed budget falls towards ever smaller or ever larger sizes",
        parabolas=curves,
        parabolas_reason=no_curves,
    )


def _rest(exponent: Estimate) -> Estimate:
    """The exponent of tokens, which are what the size leaves of the budget."""
    low, high = (None if end is None else 1 - end for end in (exponent.low, exponent.high))
    return Estimate(value=1 - exponent.value, low=high, high=low)


@dataclass(frozen=True)
class _Search:
    """The best size on fixed budgets, by the law and by each of its samples."""

    law: Law
    split: Split

    def _values(self) -> np.ndarray:
        """The law's coefficients, and under them those of its samples. Shapes: [1 + samples, P]"""
        names = self.law.as_form.coefficients
        own = np.array([[self.law.coefficients[name] for name in names]])
        return np.vstack([own, np.array(self.law.samples)]) if self.law.samples else own

    def sizes(self, budget: float) -> np.ndarray:
        """Log of the best size by the law and each sample; infinite where loss falls to an end of the search.

        Shapes: [1 + samples]
        """
        values = self._values()
        middle = 0.5 * np.log(budget / self.split.factor)
        grid = np.linspace(middle - REACH, middle + REACH, COARSE)
        place = self._losses(values, grid[None], budget).argmin(axis=1)
        low, high = (grid[np.clip(place + side, 0, COARSE - 1)] for side in (-1, 1))
        every = np.arange(len(values))
        for _ in range(ROUNDS):
            finer = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, FINE)
            at = self._losses(values, finer, budget).argmin(axis=1)
            low, high = (finer[every, np.clip(at + side, 0, FINE - 1)] for side in (-1, 1))
        found = (low + high) / 2
        return np.where(place == 0, -np.inf, np.where(place == COARSE - 1, np.inf, found))

    def _losses(self, values: np.ndarray, log_size: np.ndarray, budget: float) -> np.ndarray:
        """Shapes: values [samples, P], log_size [samples or 1, n], to [samples, n]"""
        with np.errstate(over="ignore", invalid="ignore"):
            loss = self.law.as_form.loss(values, self.split.columns(np.exp(log_size), budget))
        return np.where(np.isnan(loss), np.inf, loss)

    def exponent(self, low: float, high: float) -> Estimate | None:
        """Of the best size over compute, between two budgets; None where the law has no best size."""
        with np.errstate(invalid="ignore"):  # from one infinite size to another
            slopes = (self.sizes(high) - self.sizes(low)) / np.log(high / low)
        return self._estimate(slopes)

    def best_at(self, budget: float) -> BestAt | None:
        """The best size and tokens for a budget; None where the law has no best size."""
        logs = self.sizes(budget)
        whole = np.log(budget / self.split.factor)
        size, tokens = self._estimate(logs), self._estimate(whole - logs)
        if size is None or tokens is None:
            return None
        shape = self.split.columns(np.exp(logs[:1]), budget)
        own = {name: float(values[0]) for name, values in shape.items()}
        loss = self.law.loss(**own)
        low, high = self.law.interval(**own) if len(self.law.samples) > 1 else (None, None)
        return BestAt(
            flops=budget,
            size=_exp(size),
            tokens=_exp(tokens),
            loss=Estimate(
                value=loss, low=None if low is None else float(low[0]), high=None if high is None else float(high[0])
            ),
            beyond=_beyond(self.law, {**own, "flops": budget}),
        )

    def _estimate(self, values: np.ndarray) -> Estimate | None:
        """The law's own value, and the quantiles of its samples where they are finite."""
        if not np.isfinite(values[0]):
            return None
        if len(values) < 3:
            return Estimate(value=float(values[0]), low=None, high=None)
        tail = (1 - self.law.confidence) / 2
        sampled = values[1:]
        unknown = np.isnan(sampled)
        ends = (np.where(unknown, side, sampled) for side in (-np.inf, np.inf))
        low, high = (
            float(np.quantile(end, share, method="nearest")) for end, share in zip(ends, (tail, 1 - tail), strict=True)
        )
        return Estimate(
            value=float(values[0]),
            low=low if np.isfinite(low) else None,
            high=high if np.isfinite(high) else None,
        )


def _beyond(law: Law, variables: Mapping[str, float]) -> dict[str, float]:
    found = times_beyond(law.fitted_range, variables)
    return {name: float(factor) for name, factor in found.items() if factor > 1}


def _exp(logs: Estimate) -> Estimate:
    low, high = (None if end is None else float(np.exp(end)) for end in (logs.low, logs.high))
    return Estimate(value=float(np.exp(logs.value)), low=low, high=high)
