"""Training steps on random ids, for timing and for measuring memory: a study's step, or one of any recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from sparsedial.machine.hardware import peak_process_bytes
from sparsedial.machine.memory import STEPS
from sparsedial.model.router import same_top_k
from sparsedial.model.transformer import Transformer, initialise
from sparsedial.records.recipe import OptimizerName, Recipe
from sparsedial.runs.alone import alone
from sparsedial.runs.card_memory import runs_that_fit
from sparsedial.runs.devices import training_dtype
from sparsedial.runs.random_text import LONG, MIDDLE, random_inputs
from sparsedial.shape.shape import Shape
from sparsedial.training.loop import MOST_UNREAD
from sparsedial.training.memory import settle_memory
from sparsedial.training.optimizer import make_optimizers
from sparsedial.training.ranks import ALONE
from sparsedial.training.replayed import Replayed, why_not
from sparsedial.training.resume import training_state
from sparsedial.training.step import Rates, TrainingStep

HARMLESS_RATE = 1e-3  # the rate does not change the time, but a large one could end in NaN
A_CALL = 10  # replayed steps of a timed call: a run reads as many or more at once


def make_step(
    shape: Shape, batch: int, context: int, device: str = "cpu", threads: int = 1, token_share: float | None = None
) -> Callable[[], None]:
    """One whole training step of a study, from forward pass to optimizer; it waits until its work is done."""
    return step_by(shape, study_recipe(batch, context, device), device, threads, token_share)


def make_steps(
    shape: Shape,
    batch: int,
    context: int,
    device: str = "cpu",
    threads: int = 1,
    token_share: float | None = None,
    optimizer: OptimizerName = "adamw",
) -> tuple[Callable[[], None], int]:
    """Steps as a study takes them, and their number at a call: on a GPU some are replayed before one is waited for."""
    recipe = study_recipe(batch, context, device, optimizer)
    replayed = None if device == "cpu" else replayed_by(shape, recipe, device, threads, token_share)
    if replayed is None:
        return step_by(shape, recipe, device, threads, token_share), 1
    return partial(_replay, replayed), A_CALL


def replayed_by(
    shape: Shape, recipe: Recipe, device: str, threads: int = 1, token_share: float | None = None
) -> Replayed | None:
    """Steps on random ids as a run replays them; None where it would not. On a CPU it is the step function itself."""
    model, optimizers = _begin(shape, recipe, device, threads)
    inputs = random_inputs(shape.vocab_size, replace(recipe, steps=LONG), token_share)
    if device != "cpu" and why_not(model, recipe, ALONE, inputs.sampler.text) is not None:
        return None
    step = TrainingStep(model, optimizers, recipe, token_share=token_share or 1.0, on_device=True)
    return Replayed(step, inputs, MOST_UNREAD)


def several_by(
    shape: Shape,
    batch: int,
    context: int,
    most: int,
    device: str = "cpu",
    threads: int = 1,
    token_share: float | None = None,
    optimizer: OptimizerName = "adamw",
) -> list[Replayed]:
    """Runs of a study's steps, each with its graphs on a stream of its own: as many as asked, or as a GPU has room for.

    There are none where steps are not replayed.
    """
    recipe = study_recipe(batch, context, device, optimizer)
    fitting = most if device == "cpu" else min(most, runs_that_fit(shape, recipe))
    runs = (replayed_by(shape, recipe, device, threads, token_share) for _ in range(fitting))
    return [run for run in runs if run is not None]


def _replay(replayed: Replayed) -> None:
    """Steps of which nothing but loss and norm is read; it waits until their work is done."""
    replayed.take(range(MIDDLE, MIDDLE + A_CALL))
    replayed.read()


def peak_bytes(shape: Shape, batch: int, context: int, device: str = "cpu", threads: int = 1) -> float:
    """The peak memory of ten training steps of a study, measured by `peak_by`."""
    return peak_by(shape, study_recipe(batch, context, device), device, threads)[0]


def study_recipe(batch: int, context: int, device: str, optimizer: OptimizerName = "adamw") -> Recipe:
    """What runs of a study by one optimizer share, so far as a step's time and its kernels depend on it."""
    dtype = training_dtype(device)
    return Recipe(
        learning_rate=HARMLESS_RATE, steps=STEPS, batch=batch, context=context, dtype=dtype, optimizer=optimizer
    )


def step_by(
    shape: Shape, recipe: Recipe, device: str, threads: int, token_share: float | None = None
) -> Callable[..., None]:
    """One whole training step by a recipe, with its dtype, its multi-token prediction and a choice of its tokens.

    It takes the number of experts that tokens visit, if that is not the shape's top_k.
    """
    return step_of(*_begin(shape, recipe, device, threads), recipe, device, token_share)


def peak_by(shape: Shape, recipe: Recipe, device: str, threads: int) -> tuple[float, float]:
    """The peak memory of ten steps in a separate process, and the part of it for weights and moments.

    Units: bytes; on a GPU, the GPU's memory
    Raises: UserError where the process is killed, as it is where it needs more memory than there is.
    """
    return alone(_peak_here, shape, recipe, device, threads)


def _peak_here(shape: Shape, recipe: Recipe, device: str, threads: int) -> tuple[float, float]:
    model, optimizers = _begin(shape, recipe, device, threads)
    step = step_of(model, optimizers, recipe, device)
    for _ in range(STEPS):
        step()
    peak = torch.cuda.max_memory_reserved() if device == "cuda" else peak_process_bytes()
    return float(peak), float(sum(tensor.nbytes for tensor in training_state(model, optimizers).values()))


def _begin(shape: Shape, recipe: Recipe, device: str, threads: int) -> tuple[Transformer, list[torch.optim.Optimizer]]:
    settle_memory()
    torch.set_num_threads(threads)
    model = initialise(shape, 0).to(device)
    return model, make_optimizers(model, recipe)


def step_of(
    model: Transformer,
    optimizers: list[torch.optim.Optimizer],
    recipe: Recipe,
    device: str,
    token_share: float | None = None,
) -> Callable[..., None]:
    """One training step of a model on random ids, at a number of experts; it waits until its work is done."""
    generator = torch.Generator().manual_seed(0)
    ids_BS1 = torch.randint(model.shape.vocab_size, (recipe.batch, recipe.context + 1), generator=generator).to(device)
    # the weight of multi-token prediction does not change the time, unless it is 0
    prediction_weight = max(recipe.mtp_weight, recipe.mtp_late_weight)
    reference_BS = None if token_share is None else torch.rand(ids_BS1[:, 1:].shape).to(device)
    training = TrainingStep(model, optimizers, recipe, token_share=token_share or 1.0)

    def step(top_k: int | None = None) -> None:
        top_k_LB = None if top_k is None else same_top_k(top_k, model.shape, ids_BS1.device)
        rates = Rates(HARMLESS_RATE, recipe.balance_rate, prediction_weight, top_k_LB)
        training.take(ids_BS1, rates, reference_BS=reference_BS)
        if device == "cuda":
            torch.cuda.synchronize()

    return step
