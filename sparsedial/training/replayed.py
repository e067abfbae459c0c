"""The steps of a run as one function of tensors that stay in place, so that a GPU replays it as a graph.

The train split, where the windows of the next steps begin, their rates and a counter lie on the device; losses, norms
and balance go to rings there. From step to step nothing changes that Python would hold.

B sequences, S positions, L layers, N steps between two readings.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparsedial.kernels import triton_launch
from sparsedial.model.transformer import Transformer
from sparsedial.records.recipe import Recipe
from sparsedial.text.prepare import Text
from sparsedial.training.adamw import OnePassAdamW
from sparsedial.training.inputs import Inputs
from sparsedial.training.ranks import Alone, Ranks
from sparsedial.training.step import Figures, Rates, TrainingStep, balance_of_routers, loads_and_biases, worst

WARM_UP = 2  # steps that are taken before one is captured: they compile kernels and make the moments
TEXT_SHARE = 0.1  # of a GPU's memory: a train split that is larger stays on the host
SIGNED = {1: np.uint8, 2: np.int16, 4: np.int32}  # by the bytes of an id; CUDA does not index all unsigned types


class Kind(NamedTuple):
    """What a step does that others of the run do not; each kind is a graph of its own."""

    with_balance: bool
    predicts: bool  # whether multi-token prediction has a weight


def why_not(model: Transformer, recipe: Recipe, ranks: Alone | Ranks, text: Text) -> str | None:
    """The reason why a run's steps are not replayed on its device; None where they are."""
    table_VD = model.embedding_VD
    if not table_VD.is_cuda:
        return "a CPU gains nothing"
    if ranks.count > 1:
        return "ranks exchange messages in every step"
    if recipe.spike_sigmas > 0:
        return "the guard against spikes reads every step and goes back"
    if not triton_launch.available():
        return "Triton is not installed"
    if text.tokens("train").nbytes > TEXT_SHARE * torch.cuda.mem_get_info(table_VD.device)[1]:
        return f"the text takes more than {TEXT_SHARE:.0%} of the GPU's memory"
    return None


class Replayed:
    """A run's steps, up to `most` between two readings: graphs on a GPU, and the same function on a CPU.

    A GPU works on a stream of its own. The first steps are taken by the function itself, all with the balance, so that
    they do whatever a later kind does: after a capture no step needs memory of its own beside that of the graphs.
    """

    def __init__(self, step: TrainingStep, inputs: Inputs, most: int) -> None:
        self._step, self._inputs, self._taken = step, inputs, range(0)
        recipe, device = inputs.recipe, step.model.embedding_VD.device
        self._tokens = _on_device(inputs.sampler.text, device)
        self._offsets_S1 = torch.arange(recipe.context + 1, device=device)
        self._place = torch.zeros(1, dtype=torch.long, device=device)  # of the step among those between two readings
        self._first_NB = torch.zeros(most, len(inputs.first_tokens(0)), dtype=torch.long, device=device)
        self._rates_N3 = torch.zeros(most, 3, dtype=torch.float64, device=device)
        layers = len(inputs.top_k(0) or ())
        self._top_k_NL1 = torch.zeros(most, layers, 1, dtype=torch.long, device=device) if layers else None
        self._reference_NBS = (
            torch.zeros(*self._first_NB.shape, recipe.context, device=device) if inputs.selecting else None
        )
        self._figures_N2 = torch.zeros(most, 2, dtype=torch.float64, device=device)  # loss and gradient norm
        routers = loads_and_biases(step.model) or ()
        self._routers = tuple(table.new_zeros(most, *table.shape) for table in routers)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._graphs: dict[Kind, Any] = {}
        self._warm: Counter[bool] = Counter()  # steps by whether they predict
        self._refused: set[Kind] = set()
        self._held: list[Tensor] = []  # what graphs read and nothing else holds

    @property
    def captured(self) -> int:
        """Kinds of steps that are graphs."""
        return len(self._graphs)

    def take(self, indices: range) -> None:
        """Take these steps; on a GPU this does not wait for them."""
        with self._on_stream():
            self._send(indices)
            for index in indices:
                self._take_one(self._kind(index))
        self._taken = indices

    def read(self) -> list[Figures]:
        """The figures of these steps; this waits for them."""
        measured = [self._kind(index).with_balance for index in self._taken]
        balances: list[Any] = []
        with self._on_stream():
            rows = self._figures_N2[: len(measured)].tolist()
            if any(measured):
                balances = balance_of_routers(tuple(table[: len(measured)] for table in self._routers)).tolist()
        return [
            Figures(loss, norm, worst(balances[place]) if measured[place] else None)
            for place, (loss, norm) in enumerate(rows)
        ]

    def step_in_place(self, kind: Kind) -> None:
        """The step at the counter, which moves on: a function of tensors that stay in place."""
        place = self._place
        ids_BS1 = self._windows(self._first_NB.index_select(0, place)[0])
        rate, bias_rate, prediction_weight = self._rates_N3.index_select(0, place)[0].unbind()
        rates = Rates(
            rate,
            bias_rate,
            prediction_weight.float() if kind.predicts else 0.0,
            None if self._top_k_NL1 is None else self._top_k_NL1.index_select(0, place)[0],
        )
        reference_NBS = self._reference_NBS
        reference_BS = None if reference_NBS is None else reference_NBS.index_select(0, place)[0]
        taken = self._step.take(ids_BS1, rates, kind.with_balance, reference_BS)
        figures_2 = torch.stack([torch.as_tensor(taken.loss), torch.as_tensor(taken.gradient_norm)])
        self._figures_N2.index_copy_(0, place, figures_2.double()[None])
        for held, now in zip(self._routers, taken.routers or (), strict=False):
            held.index_copy_(0, place, now[None])
        place += 1

    def _windows(self, first_B: Tensor) -> Tensor:
        """The windows that begin at these tokens. Shapes: [B] to int64 [B, S+1]"""
        ids_BS1 = self._tokens[first_B[:, None] + self._offsets_S1].long()
        return ids_BS1 & 0xFFFF if self._tokens.dtype == torch.int16 else ids_BS1

    def _kind(self, index: int) -> Kind:
        with_balance = bool(self._routers) and self._inputs.with_balance(index)
        return Kind(with_balance, self._inputs.rates(index)[2] > 0)

    def _send(self, indices: range) -> None:
        """Put what the steps need in its place, and the counter on the first."""
        inputs = self._inputs
        columns: list[tuple[Tensor | None, Sequence[Any]]] = [
            (self._first_NB, [inputs.first_tokens(index) for index in indices]),
            (self._rates_N3, [inputs.rates(index) for index in indices]),
        ]
        if self._top_k_NL1 is not None:
            columns.append((self._top_k_NL1, [np.array(inputs.top_k(index))[:, None] for index in indices]))
        if self._reference_NBS is not None:
            columns.append((self._reference_NBS, [inputs.reference(index) for index in indices]))
        for held, rows in columns:
            assert held is not None
            given = torch.from_numpy(np.stack(rows))
            held[: len(indices)].copy_(given.pin_memory() if self._stream else given, non_blocking=True)
        self._place.zero_()

    def _take_one(self, kind: Kind) -> None:
        graph = self._graphs.get(kind)
        if graph is None and self._stream is not None and kind not in self._refused:
            if self._warm[kind.predicts] < WARM_UP:
                self._warm_up(kind.predicts)
                return
            graph = self._captured(kind)
        if graph is None:
            self.step_in_place(kind)
        else:
            graph.replay()

    def _warm_up(self, predicts: bool) -> None:
        """Take a step before any that predicts alike is captured; graphs of the others, which are over, go first."""
        self._warm[predicts] += 1
        if self._graphs:
            self._graphs.clear()
            self._held.clear()
            self._step.forget_gradients()  # which lie in the graphs' memory
            torch.cuda.empty_cache()
        self.step_in_place(Kind(bool(self._routers), predicts))

    def _captured(self, kind: Kind) -> Any:
        """The step as a graph; None, with a warning, where the device does not capture it."""
        pool = next(iter(self._graphs.values())).pool() if self._graphs else torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        self._step.forget_gradients()  # so that the capture begins without them, as each replay will
        try:
            with torch.cuda.graph(graph, pool, self._stream, capture_error_mode="thread_local"):
                self.step_in_place(kind)
        except RuntimeError as error:  # nothing ran, so the step can still be taken
            self._refused.add(kind)
            for optimizer in self._one_pass:
                optimizer.forget_tables()
            _end_of_capture(self._tokens.device, pool)
            reason = str(error).splitlines()[0]
            warnings.warn(f"steps are not replayed, since this one was not captured: {reason}", stacklevel=2)
            return None
        for optimizer in self._one_pass:
            self._held += optimizer.fill_tables()
        self._graphs[kind] = graph
        return graph

    @property
    def _one_pass(self) -> list[OnePassAdamW]:
        """The optimizers that keep tables of addresses."""
        return [optimizer for optimizer in self._step.optimizers if isinstance(optimizer, OnePassAdamW)]

    def _on_stream(self) -> contextlib.AbstractContextManager[Any]:
        if self._stream is None:
            return contextlib.nullcontext()
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        return torch.cuda.stream(self._stream)


def _end_of_capture(device: torch.device, pool: Any) -> None:
    """Tell PyTorch's allocator that a capture which failed is over.

    It learns that from a capture that ends well. Until then it gives no cached memory back to the GPU, so that the runs
    after this one would find less and less, each on its stream.
    """
    # RuntimeError: the capture ended well after all; AttributeError: a version of PyTorch has other names for these
    with contextlib.suppress(RuntimeError, AttributeError):
        torch._C._cuda_endAllocateToPool(device.index or 0, pool)
        torch._C._cuda_releasePool(device.index or 0, pool)


@functools.lru_cache(maxsize=2)
def _on_device(text: Text, device: torch.device) -> Tensor:
    """The train split's ids on a device; runs of one process share them."""
    ids = text.tokens("train")
    return torch.from_numpy(np.array(ids.view(SIGNED[ids.itemsize]))).to(device)
