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
from sparsedial.text.sampler import share_of
from sparsedial.units import human_bytes


def counted_bytes(job: Job, ranks: int = 1) -> StepBytes:
    """The memory of a job's step, part by part; of several ranks on one of them.

    It learns from its share of the batch, and holds its share of the moments and all else.

    Raises: UserError where the ranks cannot divide the batch evenly.
    """
    parts = step_memory(job.shape, replace(job.recipe, batch=share_of(job.recipe.batch, ranks)))
    return replace(parts, moments=parts.moments / ranks)


def step_memory(shape: Shape, recipe: Recipe) -> StepBytes:
    """A step's memory, part by part; a multi-token prediction module takes as much as a layer."""
    whole = replace(shape, layers=shape.layers + shape.mtp_layers)
    return step_bytes(whole, recipe.batch, recipe.context, VALUE_BYTES[recipe.dtype])


class NoRoom(UserError):
    """A run finds too little memory on its GPU: beside others it may wait, and begin or go on when they have ended."""


def card_memory() -> CardMemory:
    """The current GPU's memory, after what nothing here uses was given back to it.

    So what PyTorch keeps for later counts as free, and what it keeps for graphs that may still be replayed does not.
    It waits for the GPU: ask between runs.
    """
    torch.cuda.empty_cache()
    free, held = torch.cuda.mem_get_info()
    return CardMemory(held=held, free=free, others=max(0, held - free - torch.cuda.memory_reserved()))


def device_bytes(device: str) -> float:
    """Memory of the machine, or of the GPU that PyTorch takes: the first that this process may see."""
    return machine_bytes() if device == "cpu" else card_memory().held


def runs_that_fit(shape: Shape, recipe: Recipe) -> int:
    """How many runs of a shape the current GPU has room for at once."""
    return int(card_memory().free // float(step_memory(shape, recipe).total))


def require_fits(job: Job, ranks: int = 1) -> None:
    """Refuse a run whose counted step needs more of its GPU than is free; on a CPU nothing is checked.

    Of several ranks this one's step is counted.

    Raises: NoRoom with the bytes needed, those free, and the largest batch that fits.
    """
    if job.device == "cpu":
        return
    card, needed = card_memory(), _needed(job, ranks)
    if needed > card.free:
        words = f"a step of this run needs {human_bytes(needed)}, and {card.words}"
        raise NoRoom(words, hint=_advice(job, card.free, ranks))


@contextlib.contextmanager
def explained(job: Job | None = None, ranks: int = 1) -> Generator[None]:
    """Raises: UserError where a GPU's memory runs out within: for a run with what it was counted to need."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        if job is not None:
            raise out_of_memory(job, ranks) from error
        raise UserError(
            f"the GPU's memory ran out: {card_memory().words}",
            hint="give a smaller <batch>, or wait for the card",
        ) from error


def out_of_memory(job: Job, ranks: int = 1) -> NoRoom:
    """What to say of a run that its GPU had no memory for after all."""
    card = card_memory()
    less = ranks * max(1, job.recipe.batch // (2 * ranks))  # the whole did not fit
    half = replace(job, recipe=replace(job.recipe, batch=less))
    counted = f"a step of this run was counted to need {human_bytes(_needed(job, ranks))}"
    return NoRoom(
        f"the GPU's memory ran out: {counted}, and this process could have {human_bytes(card.held - card.others)}",
        hint=_advice(half, card.held - card.others, ranks),
    )


def largest_batch(job: Job, most_bytes: float, ranks: int = 1) -> int:
    """The most sequences, up to the job's own, whose counted step fits into so many bytes; 0 where not one does.

    Of several ranks each needs so many bytes, and the sequences are theirs together: a multiple of their number.
    """
    low, high = 0, job.recipe.batch // ranks
    while low < high:
        middle = (low + high + 1) // 2
        fits = _needed(replace(job, recipe=replace(job.recipe, batch=ranks * middle)), ranks) <= most_bytes
        low, high = (middle, high) if fits else (low, middle - 1)
    return ranks * low


def _needed(job: Job, ranks: int) -> float:
    return float(counted_bytes(job, ranks).total)


def _advice(job: Job, free: float, ranks: int) -> str:
    batch = largest_batch(job, free, ranks)
    if not batch:
        one = "one sequence" if ranks == 1 else "one sequence a rank"
        return f"not even {one} fits: give a smaller shape or a shorter <context>, or wait for the card"
    return f"the largest batch that fits is {batch} (<recipe.batch>, or a study's <batch>)"
