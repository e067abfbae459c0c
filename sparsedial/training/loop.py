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
from sparsedial.training.inputs import Inputs
from sparsedial.training.ranks import ALONE, Alone, Ranks
from sparsedial.training.replayed import Replayed, why_not
from sparsedial.training.step import Balance, Figures, Rates, Taken, TrainingStep, read
from sparsedial.training.token_selection import Selecting

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
    replay: bool | None = None,
    pauses: bool = False,
) -> Iterator[list[Step]]:
    """Train from step `start` on, yielding the steps since the last reading; batches in `skipped` are left out.

    At a yield the weights are those after the last of its steps. On a CPU, and where a spike must be found at once,
    each step is read when it is done. On a GPU several are, so that it need not wait for the host; a reading ends with
    the step before `stop`, if a run passes it.

    With a dial the number of experts that tokens visit changes from step to step (see `Draws`). With a teacher its
    distribution over the next token is learned, and where tokens are selected only those are; a Step's loss is that on
    all of the text all the same.

    On a GPU the steps are replayed as graphs where nothing speaks against it; `replay` decides otherwise, and on a CPU.

    With `pauses` it yields no steps at all while a GPU takes some, so that another run can be given its own meanwhile.

    Ends early, with a last Step whose loss or gradient is not finite, when the run diverges: the weights are then
    those of the step before.
    """
    share = 1.0 if selecting is None else selecting.share
    sampler = Sampler(text=text, seed=recipe.seed, sequences=recipe.batch, context=recipe.context, ranks=ranks.count)
    draws = None if dial is None else Draws.of(dial, model.shape, recipe)
    inputs = Inputs(
        recipe=recipe, sampler=sampler, skipped=tuple(skipped), rank=ranks.index, draws=draws, selecting=selecting
    )
    if replay is None:
        replay = why_not(model, recipe, ranks, text) is None
    step = TrainingStep(model, optimizers, recipe, ranks, teacher, share, on_device=replay)
    steps = Replayed(step, inputs, MOST_UNREAD) if replay else OneByOne(step, inputs)
    at_once = recipe.spike_sigmas > 0 or not (replay or model.embedding_VD.is_cuda)
    index, most = start, 1
    while index < recipe.steps:
        began = time.perf_counter()
        end = min(index + most, stop if index < stop else recipe.steps, recipe.steps)
        steps.take(range(index, end))
        if pauses and not at_once:
            yield []
        figures = steps.read()
        seconds = time.perf_counter() - began
        yield _steps(figures, index, seconds / len(figures), recipe)
        if not all(found.finite for found in figures):
            return
        if not at_once:
            most = min(2 * most, MOST_UNREAD) if seconds < READING_SECONDS else max(1, most // 2)
        index = end


class OneByOne:
    """A run's steps, each given to the device by itself."""

    def __init__(self, step: TrainingStep, inputs: Inputs) -> None:
        self._step, self._inputs, self._taken = step, inputs, list[Taken]()
        self._device = step.model.embedding_VD.device

    def take(self, indices: range) -> None:
        """Take these steps; on a GPU this does not wait for them."""
        self._taken = [self._take_one(index) for index in indices]

    def read(self) -> list[Figures]:
        """The figures of these steps; this waits for them."""
        return read(self._taken)

    def _take_one(self, index: int) -> Taken:
        inputs, device = self._inputs, self._device
        top_k, reference_BS = inputs.top_k(index), inputs.reference(index)
        return self._step.take(
            _moved(torch.from_numpy(inputs.ids(index)), device),
            Rates(*inputs.rates(index), None if top_k is None else _moved(torch.tensor(top_k).unsqueeze(1), device)),
            inputs.with_balance(index),
            None if reference_BS is None else _moved(torch.from_numpy(reference_BS), device),
        )


def _moved(numbers: Tensor, device: torch.device) -> Tensor:
    """Numbers on the device; a copy from pinned memory waits for nothing."""
    return (numbers.pin_memory() if device.type == "cuda" else numbers).to(device, non_blocking=True)


def _steps(figures: Sequence[Figures], first: int, seconds: float, recipe: Recipe) -> list[Step]:
    """The steps with these figures, of this time each, up to the first that is not finite."""
    steps, tokens = [], recipe.batch * recipe.context
    for index, found in enumerate(figures, start=first):
        balance = found.balance if found.finite else None
        steps.append(Step(index, found.loss, found.gradient_norm, recipe.rate(index), seconds, tokens, balance))
        if not found.finite:
            break
    return steps
