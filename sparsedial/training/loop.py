"""The training loop: a generator that yields a Step; who drives it logs, saves, scores and stops."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from sparsedial.model.router import balance_of
from sparsedial.model.transformer import Transformer
from sparsedial.text.batches import batch
from sparsedial.text.prepare import Text
from sparsedial.training.optimizer import clip_gradient, set_rate
from sparsedial.training.recipe import Recipe

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
    balance: dict[str, float] | None = None  # of the worst router, at some steps; with how far biases have drifted


def train_steps(
    model: Transformer,
    optimizers: Sequence[torch.optim.Optimizer],
    text: Text,
    recipe: Recipe,
    start: int = 0,
    skipped: Sequence[int] = (),
) -> Iterator[Step]:
    """Train from step `start` on, yielding each step after it is done; batches in `skipped` are left out.

    Ends early, with a last Step whose loss or gradient is not finite, when the run diverges: the weights are then
    those of the step before.
    """
    device = model.embedding_VD.device
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=recipe.dtype == "bfloat16")
    parameters = list(model.parameters())
    for index in range(start, recipe.steps):
        began = time.perf_counter()
        number = batch_number(index, skipped)
        ids = batch(text, seed=recipe.seed, step=number, batch=recipe.batch, context=recipe.context)
        for parameter in parameters:
            parameter.grad = None  # before the forward pass: old gradients and activations are not held at once
        with autocast:
            total, entropy = model.loss(
                torch.from_numpy(ids).to(device, non_blocking=True),
                recipe.balance_weight,
                recipe.z_loss_weight,
                recipe.prediction_weight(index),
            )
        total.backward()
        norm = clip_gradient(parameters, recipe.clip)
        rate = recipe.rate(index)
        loss, balance = float(entropy), None
        finite = math.isfinite(norm) and math.isfinite(loss)
        if finite:
            set_rate(optimizers, rate)
            for optimizer in optimizers:
                optimizer.step()
            if index % max(1, recipe.steps // READINGS) == 0:
                balance = read_balance(model)
        for layer in model.sparse_feed_forwards:
            layer.balance(recipe.bias_rate(index) if finite else 0.0)  # a step that counts for nothing has no load
        yield Step(index, loss, norm, rate, time.perf_counter() - began, recipe.batch * recipe.context, balance)
        if not finite:
            return


def batch_number(index: int, skipped: Sequence[int]) -> int:
    """The batch that a step learns from: its own number, moved on past the batches that are left out."""
    for number in sorted(skipped):
        index += number <= index
    return index


def read_balance(model: Transformer) -> dict[str, float] | None:
    """The balance of the router whose busiest expert has most, and the largest routing bias of all; None for dense."""
    layers = model.sparse_feed_forwards
    if not layers:
        return None
    worst = max((balance_of(layer.load_E) for layer in layers), key=lambda balance: balance["max_over_mean"])
    biases = [float(layer.bias_E.abs().max()) for layer in layers if layer.bias_E is not None]
    return {**worst, "bias_drift": max(biases, default=0.0)}
