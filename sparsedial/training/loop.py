"""The training loop: a generator that yields a Step; who drives it logs, saves, scores and stops."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsedial.model.transformer import Transformer
from sparsedial.text.batches import batch
from sparsedial.text.prepare import Text
from sparsedial.training.optimizer import clip_gradient
from sparsedial.training.recipe import Recipe


@dataclass(frozen=True)
class Step:
    """One optimizer step."""

    index: int
    loss: float  # cross-entropy, nats per token
    gradient_norm: float
    learning_rate: float
    seconds: float
    tokens: int


def train_steps(
    model: Transformer, optimizer: torch.optim.Optimizer, text: Text, recipe: Recipe, start: int = 0
) -> Iterator[Step]:
    """Train from step `start` on, yielding each step after it is done.

    Ends early, with a last Step whose loss or gradient is not finite, when the run diverges: the weights are then
    those of the step before.
    """
    device = model.embedding_VD.device
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=recipe.dtype == "bfloat16")
    parameters = list(model.parameters())
    for index in range(start, recipe.steps):
        began = time.perf_counter()
        ids_BS = torch.from_numpy(batch(text, seed=recipe.seed, step=index, batch=recipe.batch, context=recipe.context))
        with autocast:
            total, entropy = model.loss(
                ids_BS.to(device, non_blocking=True), recipe.balance_weight, recipe.z_loss_weight
            )
        for parameter in parameters:
            parameter.grad = None
        total.backward()
        norm = clip_gradient(parameters, recipe.clip)
        rate = recipe.rate(index)
        loss = float(entropy)
        if math.isfinite(norm) and math.isfinite(loss):
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            for layer in model.sparse_feed_forwards:
                layer.balance(recipe.bias_rate(index))
        yield Step(index, loss, norm, rate, time.perf_counter() - began, recipe.batch * recipe.context)
        if not (math.isfinite(norm) and math.isfinite(loss)):
            return


def training_state(model: Transformer, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights, buffers and optimizer moments by name, as safetensors keeps them."""
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    for parameter, moments in optimizer.state.items():
        for key, value in moments.items():
            state[f"optimizer.{names[parameter]}.{key}"] = value
    return state


def restore_state(model: Transformer, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """The inverse of `training_state`."""
    model.load_state_dict(
        {name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")}
    )
    for name, parameter in model.named_parameters():
        prefix = f"optimizer.{name}."
        moments = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if moments:
            optimizer.state[parameter] = {key: value.clone() for key, value in moments.items()}
