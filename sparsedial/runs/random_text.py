"""Random ids in the place of a text, for steps that are timed and not learned from."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import cast

import numpy as np

from sparsedial.records.recipe import Recipe
from sparsedial.text.prepare import Text
from sparsedial.text.sampler import Sampler
from sparsedial.training.inputs import READINGS, Inputs
from sparsedial.training.token_selection import Selecting

WINDOWS = 64  # of a batch
LONG = 2 * READINGS  # steps of a run that measures its balance in every second one: shorter runs do in each
MIDDLE = READINGS  # a step in its middle


@dataclass(frozen=True, kw_only=True)
class RandomText:
    """What a sampler and a token selection read of a text, drawn from a seed."""

    vocab_size: int
    train_tokens: int

    def tokens(self, split: str) -> np.ndarray:
        """Ids. Shapes: uint16 or uint32 [train_tokens]"""
        return _drawn(self.vocab_size, self.train_tokens)

    def of_windows(self, first_B: np.ndarray, context: int) -> np.ndarray:
        """Losses of a reference model. Shapes: [B] to float32 [B, context]"""
        return np.random.default_rng(0).random((len(first_B), context), np.float32)


def random_inputs(vocab_size: int, recipe: Recipe, token_share: float | None = None) -> Inputs:
    """The inputs of steps by a recipe on random ids."""
    tokens = WINDOWS * recipe.batch * recipe.context
    text = cast(Text, RandomText(vocab_size=vocab_size, train_tokens=tokens))
    sampler = Sampler(text=text, seed=0, sequences=recipe.batch, context=recipe.context)
    losses = None if token_share is None else Selecting(share=token_share, losses=text)  # pyright: ignore[reportArgumentType]
    return Inputs(recipe=recipe, sampler=sampler, selecting=losses)


@functools.lru_cache(maxsize=2)
def _drawn(vocab_size: int, count: int) -> np.ndarray:
    dtype = np.uint16 if vocab_size <= 1 << 16 else np.uint32
    return np.random.default_rng(0).integers(vocab_size, size=count, dtype=dtype)
