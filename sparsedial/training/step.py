"""One whole training step: from ids to the loss, its gradient, clipping, the optimizers and the routing balance.

B sequences, S positions, E experts, L layers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsedial.model.router import balance_figures, load_of
from sparsedial.model.transformer import SparseFeedForward, Transformer
from sparsedial.model.working import Working
from sparsedial.records.quantities import Load
from sparsedial.records.recipe import Recipe
from sparsedial.training.adamw import OnePassAdamW
from sparsedial.training.distillation import towards
from sparsedial.training.exchange import Exchange
from sparsedial.training.optimizer import (
    clip_gradient,
    gradient_norm,
    norm_on_device,
    set_rate,
    step_where_finite,
)
from sparsedial.training.ranks import ALONE, Alone, Ranks
from sparsedial.training.token_selection import by_excess


@dataclass(frozen=True)
class Rates:
    """What changes from step to step by a schedule: numbers, or tensors of the device."""

    learning_rate: float | Tensor
    bias_rate: float | Tensor  # step of the routing bias
    prediction_weight: float | Tensor  # of multi-token prediction in the loss; 0.0 leaves it out
    top_k_LB: Tensor | None = None  # experts that tokens visit in each layer; None: the shape's top_k


@dataclass(frozen=True)
class Balance:
    """How evenly the routers distribute tokens."""

    load: Load  # of the least even router, by its largest load over the mean
    bias_drift: float  # the largest routing bias of all


@dataclass(frozen=True)
class Figures:
    """What a step measured over the whole batch; a step that is not finite left the weights as they were."""

    loss: float  # cross-entropy, nats per token
    gradient_norm: float  # before clipping
    balance: Balance | None  # where it was requested

    @property
    def finite(self) -> bool:
        """Whether the step changed the weights."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


Routers = tuple[Tensor, ...]  # loads [L, E] and biases [L, E] of routers of one size, and so on for each size


@dataclass(frozen=True)
class Taken:
    """The figures of a step, which on a GPU lie there until they are read."""

    loss: float | Tensor
    gradient_norm: float | Tensor
    routers: Routers | None  # where the balance was requested


class TrainingStep:
    """Training steps of one model, with what is the same in all of them.

    Each rank contributes a share of the batch, and all ranks have the same weights afterwards. With a teacher the model
    learns its distribution over the next token, not the token of the text. With a token share below 1 the loss counts
    that share of the positions. `on_device` keeps all figures in tensors on a CPU too, as a GPU does.
    """

    def __init__(
        self,
        model: Transformer,
        optimizers: Sequence[torch.optim.Optimizer],
        recipe: Recipe,
        ranks: Alone | Ranks = ALONE,
        teacher: Transformer | None = None,
        token_share: float = 1.0,
        on_device: bool = False,
    ) -> None:
        self.model, self.optimizers, self.recipe, self.ranks = model, optimizers, recipe, ranks
        self._teacher, self._token_share = teacher, token_share
        self._working = Working(model, recipe.dtype)
        self._exchange = None
        if isinstance(ranks, Ranks):
            self._exchange = Exchange(model, optimizers, self._working, recipe, ranks)
        self._holding = self._exchange or self._working  # knows where the gradients and the copies are
        for optimizer in optimizers:
            if isinstance(optimizer, OnePassAdamW) and model.embedding_VD.is_cuda:
                optimizer.copies = self._holding.lend(optimizer.parameters)
        self._routed = model.sparse_feed_forwards
        table_VD, self._finite = model.embedding_VD, None
        if on_device or table_VD.is_cuda:
            self._finite = torch.ones((), dtype=torch.bool, device=table_VD.device)

    def take(
        self, ids_BS1: Tensor, rates: Rates, with_balance: bool = False, reference_BS: Tensor | None = None
    ) -> Taken:
        """Learn from this rank's windows of S+1 ids. On a GPU this does not wait for the work to be done.

        After a loss or a gradient that is not finite a GPU changes nothing any more, whatever the steps that follow.
        A reference model's losses of the predicted tokens choose those that count.

        Shapes: ids [B, S+1], reference [B, S], B this rank's share
        """
        entropy, gradients = self._learn(ids_BS1, rates, reference_BS)
        set_rate(self.optimizers, rates.learning_rate)
        update = self._update if self._finite is None else self._update_on_device
        loss, norm, finite = update(entropy, gradients)
        if self._exchange is not None and finite is not False:  # a tensor is not read: weights that stayed are sent too
            self._exchange.gather()
        self.ranks.add_up([layer.load_E for layer in self._routed])
        routers = loads_and_biases(self.model) if with_balance else None
        bias_rate = rates.bias_rate * finite  # a rejected step moves no bias and counts no load
        for layer in self._routed:
            layer.balance(bias_rate)
        return Taken(loss, norm, routers)

    def forget_gradients(self) -> None:
        """Drop the gradients of the step before, whose memory the next step then has."""
        self._holding.forget_gradients()

    def _update(self, entropy: Tensor, gradients: list[Tensor]) -> tuple[float, float, bool]:
        """Clip and step, unless loss or norm is not finite; both of the whole batch, and whether they are."""
        loss, norm = self.ranks.agree(float(entropy), gradient_norm(gradients))
        finite = math.isfinite(loss) and math.isfinite(norm)
        if finite:
            clip_gradient(gradients, norm, self.recipe.clip)
            for optimizer in self.optimizers:
                optimizer.step()
        return loss, norm, finite

    def _update_on_device(self, entropy: Tensor, gradients: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The same by tensors of the device; not finite is also a step after one that was not."""
        assert self._finite is not None
        loss, norm = self.ranks.agree(entropy, norm_on_device(gradients))
        self._finite &= loss.isfinite() & norm.isfinite()
        scale = (norm / self.recipe.clip).clamp(min=1).float()
        step_where_finite(self.optimizers, self._finite, scale)
        return loss, norm, self._finite

    def _learn(self, ids_BS1: Tensor, rates: Rates, reference_BS: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """The cross-entropy of the next token, and the gradients of the loss that is trained on.

        Of several ranks, the gradients of what this one owns, over the whole batch.
        """
        self.forget_gradients()  # now, so that they and the next activations are not held together
        self._working.renew()
        recipe, model = self.recipe, self._working.model
        main = None if self._teacher is None else towards(self._teacher, model, ids_BS1)
        weigh = None if reference_BS is None else by_excess(reference_BS, self._token_share)
        total, entropy = model.loss(
            ids_BS1, recipe.balance_weight, recipe.z_loss_weight, rates.prediction_weight, rates.top_k_LB, main, weigh
        )
        return entropy, self._holding.backward(total)


def loads_and_biases(model: Transformer) -> Routers | None:
    """The routers' loads and biases as they are now; None for dense. Two launches for all routers of one size."""
    alike = defaultdict[int, list[SparseFeedForward]](list)
    for layer in model.sparse_feed_forwards:
        alike[len(layer.load_E)].append(layer)
    return tuple(table for layers in alike.values() for table in _tables(layers)) or None


def _tables(layers: Sequence[SparseFeedForward]) -> tuple[Tensor, Tensor]:
    biases = [layer.bias_E for layer in layers if layer.bias_E is not None]
    load_LE = torch.stack([layer.load_E for layer in layers])
    return load_LE, torch.stack(biases) if biases else torch.zeros_like(load_LE, dtype=torch.float32)


def balance_of_routers(routers: Routers) -> Tensor:
    """The balance of every router, and its largest routing bias. Tables may be those of several steps.

    Shapes: [..., L, E] to [..., L, 4], float64
    """
    figures = [
        torch.cat([balance_figures(load_LE), bias_LE.abs().amax(-1, keepdim=True).double()], -1)
        for load_LE, bias_LE in zip(routers[::2], routers[1::2], strict=True)
    ]
    return torch.cat(figures, -2)


def read(taken: Sequence[Taken]) -> list[Figures]:
    """The figures of steps; on a GPU this waits until all of them are done."""
    numbers = _numbers([step.loss for step in taken] + [step.gradient_norm for step in taken])
    measured = [step.routers for step in taken if step.routers is not None]
    tables = tuple(torch.stack(each) for each in zip(*measured, strict=True))
    balances = iter(balance_of_routers(tables).tolist() if tables else ())
    return [
        Figures(loss, norm, None if step.routers is None else worst(next(balances)))
        for step, loss, norm in zip(taken, numbers, numbers[len(taken) :], strict=False)
    ]


def _numbers(given: Sequence[Any]) -> Sequence[Any]:
    return torch.stack(list(given)).tolist() if given and isinstance(given[0], Tensor) else given


def worst(rows: Sequence[Sequence[float]]) -> Balance:
    """The balance of the least even router, and the largest bias of all."""
    loads = [load_of(*row[:3]) for row in rows]
    return Balance(max(loads, key=lambda load: load.max_over_mean), max(row[3] for row in rows))
