"""Training step by step, without the readings in which a GPU gives them; and steps as a GPU takes them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from sparsedial.kernels import native
from sparsedial.model.transformer import initialise
from sparsedial.records.recipe import Dtype, Recipe
from sparsedial.shape.ladder import Ladder
from sparsedial.training.adamw import OnePassAdamW
from sparsedial.training.loop import Step, train_readings
from sparsedial.training.optimizer import make_optimizers
from sparsedial.training.ranks import Alone, Ranks
from sparsedial.training.resume import training_state
from sparsedial.training.step import Rates, TrainingStep, read


def train_steps(*given: Any, **named: Any) -> Iterator[Step]:
    """The steps of `train_readings`, one by one."""
    return chain.from_iterable(train_readings(*given, **named))


def state_on_device(
    optimizer: str, dtype: Dtype, ranks: Alone | Ranks, lent: bool = False, broken: bool = False
) -> dict[str, Tensor]:
    """The state after three steps as a GPU takes them, and after a fourth whose gradient is no number on the last rank.

    Each rank has the same batch: without clipping all together do what one does, since the mean of equals is exact.
    """
    recipe = Recipe(learning_rate=0.01, steps=4, batch=2, context=16, clip=1e9, optimizer=optimizer, dtype=dtype)
    model = initialise(Ladder(vocab_size=64, context=16).shape(12, 4), 0)
    ids_BS1 = torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(0))
    with native.set_aside():
        optimizers = make_optimizers(model, recipe, ranks)
        step = TrainingStep(model, optimizers, recipe, ranks, on_device=True)
        if lent:
            adamw = optimizers[-1]
            assert isinstance(adamw, OnePassAdamW)
            adamw.copies = step._holding.lend(adamw.parameters)
            assert adamw.copies
        for _ in range(3):
            step.take(ids_BS1, Rates(torch.tensor(0.01), 0.001, 0.0))
        if broken:
            if ranks.index == ranks.count - 1:
                step._working.model.norm_D.register_hook(lambda gradient: gradient * torch.nan)
            assert read([step.take(ids_BS1, Rates(torch.tensor(0.01), 0.001, 0.0))])[0].finite is False
    return {name: tensor.clone() for name, tensor in training_state(model, optimizers).items()}
