"""A recipe in whole steps, with a batch that the devices of other trainers can divide."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sparsedial.records.recipe import Recipe

BALANCE_RATE = 0.001  # of a routing bias that moves by its load's sign; source: DeepSeek-V3 (arXiv 2412.19437)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long a run is, and how its learning rate rises and falls."""

    batch: int  # sequences per step
    steps: int
    warmup_steps: int
    decay_steps: int  # at the end
    final_rate: float  # where the learning rate ends
    note: str | None  # how the batch differs from the recipe's

    @property
    def devices(self) -> int:
        """How many of a machine's eight devices to use: the most that divide the batch."""
        return math.gcd(8, self.batch)


def schedule(recipe: Recipe) -> Schedule:
    """The recipe in whole steps, with a batch that many devices divide: both trainers refuse other batches.

    The batch is rounded to a multiple of the largest power of two that is at most a quarter of it, so it changes by at
    most an eighth. The number of steps then keeps the tokens.
    """
    batch, unit = recipe.batch, 1 << max(0, (recipe.batch // 4).bit_length() - 1)
    even = unit * round(batch / unit)
    steps = max(1, round(recipe.steps * batch / even))
    warmup = recipe.warmup_steps or round(recipe.warmup_share * steps)
    cosine = recipe.schedule == "cosine"
    return Schedule(
        batch=even,
        steps=steps,
        warmup_steps=warmup,
        decay_steps=steps - warmup if cosine else round(recipe.decay_share * steps),
        final_rate=0.1 * recipe.learning_rate if cosine else 0.0,
        note=None
        if even == batch
        else f"the batch of {batch} becomes {even}, which up to {unit} devices divide; {steps:,} steps keep the tokens",
    )
