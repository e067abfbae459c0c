"""One whole training step: from ids to the loss, its gradient, clipping, the optimizers and the routing balance.

B sequences, S positions, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsedial.model.router import balance_of
from sparsedial.model.transformer import Transformer
from sparsedial.model.working import Working
from sparsedial.records.quantities import Load
from sparsedial.records.recipe import Recipe
from sparsedial.training.optimizer import clip_gradient, gradient_norm, set_rate
from sparsedial.training.ranks import ALONE, Alone, Ranks


@dataclass(frozen=True)
class Rates:
    """What changes from step to step by a schedule."""

    learning_rate: float
    bias_rate: float  # step of the routing bias
    prediction_weight: float  # of multi-token prediction in the loss


@dataclass(frozen=True)
class Balance:
    """How evenly the routers distribute tokens."""

    load: Load  # of the least even router, by its largest load over the mean
    bias_drift: float  # the largest routing bias of all


@dataclass(frozen=True)
class Taken:
    """What a step measured over the whole batch; a step that is not finite left the weights as they were."""

    loss: float  # cross-entropy, nats per token
    gradient_norm: float  # before clipping
    finite: bool
    balance: Balance | None  # where it was requested


class TrainingStep:
    """Training steps of one model, with what is the same in all of them.

    Each rank contributes a share of the batch, and all ranks have the same weights afterwards.
    """

    def __init__(
        self,
        model: Transformer,
        optimizers: Sequence[torch.optim.Optimizer],
        recipe: Recipe,
        ranks: Alone | Ranks = ALONE,
    ) -> None:
        self.model, self.optimizers, self.recipe, self.ranks = model, optimizers, recipe, ranks
        self._working = Working(model, recipe.dtype)
        self._routed = model.sparse_feed_forwards

    def take(self, ids_BS1: Tensor, rates: Rates, with_balance: bool = False) -> Taken:
        """Learn from this rank's windows of S+1 ids.

        Shapes: ids [B, S+1], B this rank's share
        """
        entropy, gradients = self._gradients(ids_BS1, rates.prediction_weight)
        self.ranks.average(gradients)
        loss, norm = self.ranks.agree(float(entropy), gradient_norm(gradients))
        finite, balance = math.isfinite(loss) and math.isfinite(norm), None
        if finite:
            clip_gradient(gradients, norm, self.recipe.clip)
            set_rate(self.optimizers, rates.learning_rate)
            for optimizer in self.optimizers:
                optimizer.step()
            self.ranks.add_up([layer.load_E for layer in self._routed])
            balance = read_balance(self.model) if with_balance else None
        for layer in self._routed:
            layer.balance(rates.bias_rate if finite else 0.0)  # a rejected step moves no bias and counts no load
        return Taken(loss, norm, finite, balance)

    def _gradients(self, ids_BS1: Tensor, prediction_weight: float) -> tuple[Tensor, list[Tensor]]:
        """The cross-entropy of the next token, and the gradients of the loss that is trained on."""
        self._working.forget_gradients()  # now, so that they and the next activations are not held together
        self._working.renew()
        total, entropy = self._working.model.loss(
            ids_BS1, self.recipe.balance_weight, self.recipe.z_loss_weight, prediction_weight
        )
        total.backward()
        return entropy, self._working.gradients()


def read_balance(model: Transformer) -> Balance | None:
    """The balance of the least even router, and the largest routing bias of all; None for dense."""
    layers = model.sparse_feed_forwards
    if not layers:
        return None
    worst = max((balance_of(layer.load_E) for layer in layers), key=lambda load: load.max_over_mean)
    biases = [float(layer.bias_E.abs().max()) for layer in layers if layer.bias_E is not None]
    return Balance(worst, max(biases, default=0.0))
