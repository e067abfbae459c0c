"""A training step to be timed, or its memory measured: the study's own, on random ids."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import torch

from sparsedial.machine.hardware import peak_process_bytes
from sparsedial.machine.memory import STEPS
from sparsedial.model.transformer import initialise
from sparsedial.shape.shape import Shape
from sparsedial.training.memory import settle_memory
from sparsedial.training.optimizer import clip_gradient, make_optimizer
from sparsedial.training.recipe import OptimizerName, Recipe


def make_step(
    shape: Shape, batch: int, context: int, device: str = "cpu", threads: int = 1, optimizer: OptimizerName = "adamw"
) -> Callable[[], None]:
    """One whole training step, forward to optimizer, that waits for its own work."""
    settle_memory()
    torch.set_num_threads(threads)
    dtype = "bfloat16" if device == "cuda" else "float32"
    recipe = Recipe(learning_rate=1e-3, steps=10, batch=batch, context=context, dtype=dtype, optimizer=optimizer)
    model = initialise(shape, 0).to(device)
    moving = make_optimizer(model, recipe)
    generator = torch.Generator().manual_seed(0)
    ids_BS1 = torch.randint(shape.vocab_size, (batch, context + 1), generator=generator).to(device)
    parameters = list(model.parameters())

    def step() -> None:
        for parameter in parameters:
            parameter.grad = None
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            total, _ = model.loss(ids_BS1, recipe.balance_weight, recipe.z_loss_weight)
        total.backward()
        clip_gradient(parameters, recipe.clip)  # reads a number back, and so waits for the device
        moving.step()
        for layer in model.sparse_feed_forwards:
            layer.balance(recipe.balance_rate)
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def peak_bytes(
    shape: Shape, batch: int, context: int, device: str = "cpu", threads: int = 1, optimizer: OptimizerName = "adamw"
) -> float:
    """The most memory that ten training steps hold, in a process of their own; on a GPU, of the GPU."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
        return alone.submit(_peak_here, shape, batch, context, device, threads, optimizer).result()


def _peak_here(shape: Shape, batch: int, context: int, device: str, threads: int, optimizer: OptimizerName) -> float:
    step = make_step(shape, batch, context, device, threads, optimizer)
    for _ in range(STEPS):
        step()
    return float(torch.cuda.max_memory_reserved() if device == "cuda" else peak_process_bytes())
