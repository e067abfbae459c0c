"""The memory of a GPU: whether a run fits into what is free, before it begins, and what to say where it did not."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import replace

import torch

from sparsedial.errors import UserError
from sparsedial.machine.card import CardMemory
from sparsedial.machine.hardware import machine_bytes
from sparsedial.machine.memory import StepBytes, step_bytes
from sparsedial.machine.profile import VALUE_BYTES
from sparsedial.records.recipe import Recipe
from sparsedial.runs.job import Job
from sparsedial.shape.shape import Shape
from sparsedial.units import human_bytes


def counted_bytes(job: Job) -> StepBytes:
    """The memory of a job's step, part by part."""
    return step_memory(job.shape, job.recipe)


def step_memory(shape: Shape, recipe: Recipe) -> StepBytes:
    """A step's memory, part by part; a multi-token prediction module takes as much as a layer."""
    whole = replace(shape, layers=shape.layers + shape.mtp_layers)
    return step_bytes(whole, recipe.batch, recipe.context, VALUE_BYTES[recipe.dtype])


def card_memory() -> CardMemory:
    """The current GPU's memory."""
    free, held = torch.cuda.mem_get_info()
    reserved, allocated = torch.cuda.memory_reserved(), torch.cuda.memory_allocated()
    return CardMemory(held=held, free=free + reserved - allocated, others=max(0, held - free - reserved))


def device_bytes(device: str) -> float:
    """Memory of the machine, or of the GPU that PyTorch takes: the first that this process may see."""
    return machine_bytes() if device == "cpu" else card_memory().held


def runs_that_fit(shape: Shape, recipe: Recipe) -> int:
    """How many runs of a shape the current GPU has room for at once."""
    return int(card_memory().free // float(step_memory(shape, recipe).total))


def require_fits(job: Job) -> None:
    """Refuse a run whose counted step needs more of its GPU than is free; on a CPU nothing is checked.

    Raises: UserError with the bytes needed, those free, and the largest batch that fits.
    """
    if job.device == "cpu":
        return
    card, needed = card_memory(), _needed(job)
    if needed > card.free:
        raise UserError(
            f"a step of this run needs {human_bytes(needed)}, and {card.words}", hint=_advice(job, card.free)
        )


@contextlib.contextmanager
def explained(job: Job | None = None) -> Generator[None]:
    """Raises: UserError where a GPU's memory runs out within: for a run with what it was counted to need."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        if job is not None:
            raise out_of_memory(job) from error
        raise UserError(
            f"the GPU's memory ran out: {card_memory().words}",
            hint="give a smaller <batch>, or wait for the card",
        ) from error


def out_of_memory(job: Job) -> UserError:
    """What to say of a run that its GPU had no memory for after all."""
    card = card_memory()
    half = replace(job, recipe=replace(job.recipe, batch=max(1, job.recipe.batch // 2)))  # the whole did not fit
    counted = f"a step of this run was counted to need {human_bytes(_needed(job))}"
    return UserError(
        f"the GPU's memory ran out: {counted}, and this process could have {human_bytes(card.held - card.others)}",
        hint=_advice(half, card.held - card.others),
    )


def largest_batch(job: Job, most_bytes: float) -> int:
    """The most sequences, up to the job's own, whose counted step fits into so many bytes; 0 where not one does."""
    low, high = 0, job.recipe.batch
    while low < high:
        middle = (low + high + 1) // 2
        fits = _needed(replace(job, recipe=replace(job.recipe, batch=middle))) <= most_bytes
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _needed(job: Job) -> float:
    return float(counted_bytes(job).total)


def _advice(job: Job, free: float) -> str:
    batch = largest_batch(job, free)
    if not batch:
        return "not even one sequence fits: give a smaller shape or a shorter <context>, or wait for the card"
    return f"the largest batch that fits is {batch} (<recipe.batch>, or a study's <batch>)"
