"""What is crossed with the best models of a study: shares of its text, at two budgets, with a few seeds each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sparsedial.records.kept import KeptShare
from sparsedial.records.quantities import Family
from sparsedial.runs.executor import Executor

CROSSED_SEEDS = 3  # of each model on each share at each budget, or as many as were asked of the verdict
LEAST_TOTAL_SHARE = 0.25  # of a budget that a selection must leave for training at equal total FLOPs
FAMILIES: tuple[Family, Family] = ("dense", "sparse")


@dataclass(frozen=True, kw_only=True)
class KeptText:
    """A share of the text, and what makes the executor of so many runs at once on it."""

    share: KeptShare
    open: Callable[[int], Executor]


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """The shares, and what decides how many runs there are on them and what they cost."""

    method: str
    shares: int  # the full text among them
    seeds: int
    scored_tokens: int  # of validation and test text, of each run
    selection_flops: float = 0.0
    texts: tuple[KeptText, ...] = ()  # the full text first; none in a dry run, which selects nothing
    select_seconds: float = 0.0  # to make them, where that is still to be done

    def budgets(self, budgets: Sequence[float]) -> tuple[float, float]:
        """The two of a study's budgets at which shares are crossed."""
        return budgets[0], budgets[-1]

    def left(self, budget_flops: float) -> float:
        """The share of a budget that is left to train on where it pays for the selection; 0 where that is too little.

        It is 0 for a selection that costs no FLOPs, too: there is nothing to pay.
        """
        left = 1 - self.selection_flops / budget_flops
        return left if self.selection_flops and left >= LEAST_TOTAL_SHARE else 0.0

    def runs(self, budgets: Sequence[float]) -> int:
        """All runs; the verdict's serve as those of the full text at the largest budget."""
        _, top = self.budgets(budgets)
        pairs = 2 * self.shares + (self.shares - 1) * (self.left(top) > 0)
        return self.seeds * len(FAMILIES) * pairs
