"""What each step of a run learns from, and by which rates: a function of its index, on the host.

B sequences, S positions, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sparsedial.records.recipe import Recipe
from sparsedial.text.sampler import Sampler
from sparsedial.training.dial import Draws
from sparsedial.training.token_selection import Selecting

READINGS = 300  # of the routers' balance, spread over a run


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The inputs of a run's steps; batches in `skipped` are left out."""

    recipe: Recipe
    sampler: Sampler
    skipped: tuple[int, ...] = ()
    rank: int = 0
    draws: Draws | None = None  # None: every step at the shape's top_k
    selecting: Selecting | None = None  # None: all tokens count

    @cached_property
    def _between_readings(self) -> int:
        return max(1, self.recipe.steps // READINGS)

    def with_balance(self, index: int) -> bool:
        """Whether the routers' balance is measured in a step."""
        return index % self._between_readings == 0

    def ids(self, index: int) -> np.ndarray:
        """The windows of a step. Shapes: int64 [B, S+1]"""
        return self.sampler.batch(batch_number(index, self.skipped), self.rank)

    def first_tokens(self, index: int) -> np.ndarray:
        """Where they begin in the train split. Shapes: int64 [B]"""
        return self.sampler.first_tokens(batch_number(index, self.skipped), self.rank)

    def reference(self, index: int) -> np.ndarray | None:
        """The reference model's losses of the tokens that a step predicts; None where none are selected.

        Shapes: float32 [B, S]
        """
        if self.selecting is None:
            return None
        return self.selecting.losses.of_windows(self.first_tokens(index), self.recipe.context)

    def top_k(self, index: int) -> tuple[int, ...] | None:
        """How many experts tokens visit in each layer; None where it is the shape's top_k. Shapes: [L]"""
        return None if self.draws is None else self.draws.at(index)

    def rates(self, index: int) -> tuple[float, float, float]:
        """The learning rate, the step of the routing bias and the weight of multi-token prediction."""
        recipe = self.recipe
        return recipe.rate(index), recipe.bias_rate(index), recipe.prediction_weight(index)


def batch_number(index: int, skipped: Sequence[int]) -> int:
    """The number of the batch that a step learns from: the step's, counted past the batches that are left out."""
    for number in sorted(skipped):
        index += number <= index
    return index
