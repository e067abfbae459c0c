"""The training loop: a generator that yields a Step; who drives it logs, saves, scores and stops."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from sparsedial.model.transformer import Transformer
from sparsedial.records.recipe import Recipe
from sparsedial.text.prepare import Text
from sparsedial.text.sampler import Sampler
from sparsedial.training.ranks import ALONE, Alone, Ranks
from sparsedial.training.step import Balance, Rates, TrainingStep

READINGS = 300  # of the routers' balance, spread over a run


@dataclass(frozen=True)
class Step:
    """One optimizer step."""

    index: int
    loss: float  # cross-entropy, nats per token
    gradient_norm: float
    learning_rate: float
    seconds: float
    tokens: int
    balance: Balance | None = None  # at some steps of a sparse model


def train_steps(
    model: Transformer,
    optimizers: Sequence[torch.optim.Optimizer],
    text: Text,
    recipe: Recipe,
    start: int = 0,
    skipped: Sequence[int] = (),
    ranks: Alone | Ranks = ALONE,
) -> Iterator[Step]:
    """Train from step `start` on, yielding each step after it is done; batches in `skipped` are left out.

    Ends early, with a last Step whose loss or gradient is not finite, when the run diverges: the weights are then
    those of the step before.
    """
    device = model.embedding_VD.device
    step = TrainingStep(model, optimizers, recipe, ranks)
    sampler = Sampler(text=text, seed=recipe.seed, sequences=recipe.batch, context=recipe.context, ranks=ranks.count)
    for index in range(start, recipe.steps):
        began = time.perf_counter()
        ids = sampler.batch(batch_number(index, skipped), ranks.index)
        rates = Rates(recipe.rate(index), recipe.bias_rate(index), recipe.prediction_weight(index))
        taken = step.take(
            torch.from_numpy(ids).to(device, non_blocking=True),
            rates,
            with_balance=index % max(1, recipe.steps // READINGS) == 0,
        )
        seconds, tokens = time.perf_counter() - began, recipe.batch * recipe.context
        yield Step(index, taken.loss, taken.gradient_norm, rates.learning_rate, seconds, tokens, taken.balance)
        if not taken.finite:
            return


def batch_number(index: int, skipped: Sequence[int]) -> int:
    """The number of the batch that a step learns from: the step's, counted past the batches that are left out."""
    for number in sorted(skipped):
        index += number <= index
    return index
