"""The training loop: a generator that yields a Step; who drives it logs, saves, scores and stops."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsedial.model.transformer import Transformer
from sparsedial.records.recipe import Recipe
from sparsedial.records.trained_for import TrainedFor
from sparsedial.text.prepare import Text
from sparsedial.text.sampler import Sampler
from sparsedial.training.dial import Draws
from sparsedial.training.ranks import ALONE, Alone, Ranks
from sparsedial.training.step import Balance, Figures, Rates, Taken, TrainingStep, read
from sparsedial.training.token_selection import Selecting

READINGS = 300  # of the routers' balance, spread over a run
MOST_UNREAD = 50  # steps of a GPU between two readings of their figures
READING_SECONDS = 0.5  # between two readings, about: how late a run's progress is seen


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


def train_readings(
    model: Transformer,
    optimizers: Sequence[torch.optim.Optimizer],
    text: Text,
    recipe: Recipe,
    start: int = 0,
    skipped: Sequence[int] = (),
    ranks: Alone | Ranks = ALONE,
    stop: int = 0,
    dial: TrainedFor | None = None,
    teacher: Transformer | None = None,
    selecting: Selecting | None = None,
) -> Iterator[list[Step]]:
    """Train from step `start` on, yielding the steps since the last reading; batches in `skipped` are left out.

    At a yield the weights are those after the last of its steps. On a CPU, and where a spike must be found at once,
    each step is read when it is done. On a GPU several are, so that it need not wait for the host; a reading ends with
    the step before `stop`, if a run passes it.

    With a dial the number of experts that tokens visit changes from step to step (see `Draws`). With a teacher its
    distribution over the next token is learned, and where tokens are selected only those are; a Step's loss is that on
    all of the text all the same.

    Ends early, with a last Step whose loss or gradient is not finite, when the run diverges: the weights are then
    those of the step before.
    """
    device = model.embedding_VD.device
    at_once = recipe.spike_sigmas > 0 or not model.embedding_VD.is_cuda
    share = 1.0 if selecting is None else selecting.share
    step = TrainingStep(model, optimizers, recipe, ranks, teacher, share)
    sampler = Sampler(text=text, seed=recipe.seed, sequences=recipe.batch, context=recipe.context, ranks=ranks.count)
    draws = None if dial is None else Draws.of(dial, model.shape, recipe)
    taken: list[Taken] = []
    most, began = 1, time.perf_counter()
    for index in range(start, recipe.steps):
        number, with_balance = batch_number(index, skipped), index % max(1, recipe.steps // READINGS) == 0
        ids_BS1 = _moved(torch.from_numpy(sampler.batch(number, ranks.index)), device)
        reference_BS = _reference(selecting, sampler, number, ranks.index, device)
        taken.append(step.take(ids_BS1, _rates(recipe, index, draws, device), with_balance, reference_BS))
        if len(taken) < most and index + 1 not in (recipe.steps, stop):
            continue
        figures = read(taken)
        seconds = time.perf_counter() - began
        yield _steps(figures, index + 1 - len(taken), seconds / len(taken), recipe)
        if not all(found.finite for found in figures):
            return
        if not at_once:
            most = min(2 * most, MOST_UNREAD) if seconds < READING_SECONDS else max(1, most // 2)
        taken, began = [], time.perf_counter()


def _reference(
    selecting: Selecting | None, sampler: Sampler, number: int, rank: int, device: torch.device
) -> Tensor | None:
    """The reference model's losses of the tokens that a batch predicts; None where none are selected."""
    if selecting is None:
        return None
    losses_BS = selecting.losses.of_windows(sampler.first_tokens(number, rank), sampler.context)
    return _moved(torch.from_numpy(losses_BS), device)


def _moved(numbers: Tensor, device: torch.device) -> Tensor:
    """Numbers on the device; a copy from pinned memory waits for nothing."""
    return (numbers.pin_memory() if device.type == "cuda" else numbers).to(device, non_blocking=True)


def _rates(recipe: Recipe, index: int, draws: Draws | None, device: torch.device) -> Rates:
    top_k_L1 = None if draws is None else _moved(torch.tensor(draws.at(index)).unsqueeze(1), device)
    return Rates(recipe.rate(index), recipe.bias_rate(index), recipe.prediction_weight(index), top_k_L1)


def _steps(figures: Sequence[Figures], first: int, seconds: float, recipe: Recipe) -> list[Step]:
    """The steps with these figures, of this time each, up to the first that is not finite."""
    steps, tokens = [], recipe.batch * recipe.context
    for index, found in enumerate(figures, start=first):
        balance = found.balance if found.finite else None
        steps.append(Step(index, found.loss, found.gradient_norm, recipe.rate(index), seconds, tokens, balance))
        if not found.finite:
            break
    return steps


def batch_number(index: int, skipped: Sequence[int]) -> int:
    """The number of the batch that a step learns from: the step's, counted past the batches that are left out."""
    for number in sorted(skipped):
        index += number <= index
    return index
