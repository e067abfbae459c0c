"""One passage of calibration windows through a model, which sums what the scores of its experts are made of.

W windows, S positions, T tokens (B*S), E experts, K chosen, D d_model, H = 2F; n of the tokens that reach one expert.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from sparsedial.kernels.reference import swiglu
from sparsedial.model.far import held
from sparsedial.model.router import Routing
from sparsedial.model.transformer import Transformer
from sparsedial.pruning.in_turn import Passage
from sparsedial.pruning.scores import POWERS, Powers, Reached
from sparsedial.pruning.shelf import Group, Shelf


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What a calibration showed."""

    loss: float  # nats per token of the calibration itself
    reached: Mapping[int, Reached]  # by sparse layer; modules of multi-token prediction follow the last layer


def visits(chosen_TK: Tensor, gates_TK: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Each expert that is chosen, with the tokens that reach it and which of their choices it is. Shapes: [n], [n]"""
    for expert in chosen_TK.unique().tolist():
        yield expert, *((chosen_TK == expert) & (gates_TK > 0)).nonzero(as_tuple=True)


class Tally:
    """Takes the place of the kernels in sparse layers: computes their experts one by one, and sums what it sees."""

    def __init__(self, experts: Mapping[int, int], *, outputs: bool = False, every: int = 0) -> None:
        """`outputs`: also compute every expert's output for every token, for their means. `every`: also hold what each
        so-many-th token's experts read.
        """
        self._outputs: dict[int, Tensor] | None = {} if outputs else None  # [E, D], float64
        self._every = every
        self._inputs: dict[int, list[Tensor]] = {layer: [] for layer in experts}  # [t, D], t of the tokens
        self._read = dict.fromkeys(experts, 0)  # tokens of each layer
        self._tokens = {layer: torch.zeros(count, dtype=torch.long) for layer, count in experts.items()}
        self._sums = {
            layer: {powers: torch.zeros(count, dtype=torch.float64) for powers in POWERS}
            for layer, count in experts.items()
        }

    def __call__(
        self, layer: int, x_TD: Tensor, w_in_EDH: Tensor, w_out_EFD: Tensor, chosen_TK: Tensor, gates_TK: Tensor
    ) -> Tensor:
        """The experts' weighted outputs. A choice that a token does not visit has gate 0, and reaches no expert."""
        if self._outputs is not None:
            experts = zip(w_in_EDH, w_out_EFD, strict=True)
            total_ED = torch.stack([swiglu(x_TD, *weights).double().sum(0) for weights in experts])
            self._outputs[layer] = self._outputs.get(layer, 0) + total_ED.cpu()
        if self._every:
            self._inputs[layer].append(x_TD[-self._read[layer] % self._every :: self._every].cpu())
        self._read[layer] += len(x_TD)
        y_TD = torch.zeros_like(x_TD)
        for expert, token_n, choice_n in visits(chosen_TK, gates_TK):
            out_nD = swiglu(x_TD[token_n], w_in_EDH[expert], w_out_EFD[expert])
            gate_n = gates_TK[token_n, choice_n]
            self._add(layer, expert, gate_n.double(), out_nD.double().norm(dim=1))
            y_TD = y_TD.index_add(0, token_n, out_nD * gate_n[:, None].to(out_nD.dtype))
        return y_TD

    def _add(self, layer: int, expert: int, gate_n: Tensor, norm_n: Tensor) -> None:
        self._tokens[layer][expert] += len(gate_n)
        for a, b in POWERS:
            self._sums[layer][a, b][expert] += (gate_n**a * norm_n**b).sum().cpu()

    @property
    def reached(self) -> dict[int, Reached]:
        """The sums so far, by layer."""
        return {
            layer: Reached(
                tokens_E=tokens_E.numpy().copy(),
                sums={powers: sum_E.numpy().copy() for powers, sum_E in self._sums[layer].items()},
                outputs_ED=self._mean_outputs(layer),
                inputs_TD=torch.cat(self._inputs[layer]).numpy() if self._inputs[layer] else np.empty((0, 0)),
            )
            for layer, tokens_E in self._tokens.items()
        }

    def _mean_outputs(self, layer: int) -> np.ndarray:
        if self._outputs is None:
            return np.empty((len(self._tokens[layer]), 0))
        return (self._outputs[layer] / self._read[layer]).numpy()


@torch.no_grad()
def gather(
    model: Transformer, windows_WS1: Tensor, shelf: Shelf | None = None, *, outputs: bool = False, inputs: int = 0
) -> Gathered:
    """Read each window once, and sum what its tokens show of the experts that they reach.

    Modules of multi-token prediction read the windows too, since they have experts of their own. With `outputs` each
    expert also reads every token, which takes experts/top_k times as long. With `inputs` the inputs of at most so many
    tokens of each layer are held, evenly spread.

    Shapes: [W, S+1]
    """
    passage, reached = Passage(model, windows_WS1, shelf), dict[int, Reached]()
    experts = {layer.layer: layer.sizes.experts for layer in model.sparse_feed_forwards}
    every = -(-passage.tokens // inputs) if inputs else 0
    for turn in passage.turns():
        own = {number: count for number, count in experts.items() if number == turn.number}
        tally = Tally(own, outputs=outputs, every=every)
        turn.pass_on(partial(turn.block, routing=Routing(watch=tally)))
        reached |= reached_of(turn.found(lambda tally=tally: tensors_of(tally.reached)), own)
    own = {number: count for number, count in experts.items() if number >= model.shape.layers}
    tally = Tally(own, outputs=outputs, every=every)
    look = partial(predict, model, Routing(watch=tally))
    with modules_held(model):
        group = passage.end(lambda: {"loss": passage.loss(look), **tensors_of(tally.reached)})
    return Gathered(loss=float(group["loss"]()), reached=reached | reached_of(group, own))


@contextlib.contextmanager
def modules_held(model: Transformer) -> Iterator[None]:
    """Within it the modules of multi-token prediction are in memory."""
    with contextlib.ExitStack() as stack:
        for block in model.every_block[model.shape.layers :]:
            stack.enter_context(held(block))
        yield


def tensors_of(reached: Mapping[int, Reached]) -> dict[str, Tensor]:
    """What was reached, as tensors by name, all of them of floating-point numbers."""
    return {
        f"{number}.{name}": torch.from_numpy(np.ascontiguousarray(values))
        for number, seen in reached.items()
        for name, values in {
            "tokens": seen.tokens_E.astype(float),
            "outputs": seen.outputs_ED,
            "inputs": seen.inputs_TD,
            **{_of_powers(powers): sum_E for powers, sum_E in seen.sums.items()},
        }.items()
    }


def reached_of(group: Group, layers: Iterable[int]) -> dict[int, Reached]:
    """The inverse of `tensors_of`, for the layers that are named."""

    def values(number: int, name: str) -> np.ndarray:
        return group[f"{number}.{name}"]().numpy()

    return {
        number: Reached(
            tokens_E=values(number, "tokens").astype(np.int64),
            sums={powers: values(number, _of_powers(powers)) for powers in POWERS},
            outputs_ED=values(number, "outputs"),
            inputs_TD=values(number, "inputs"),
        )
        for number in layers
    }


def _of_powers(powers: Powers) -> str:
    return "sum of gate^{} norm^{}".format(*powers)


@contextlib.contextmanager
def watching(hooks: Sequence[RemovableHandle]) -> Iterator[None]:
    """Within it the hooks of a model's modules are called; then they are removed."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def predict(model: Transformer, routing: Routing, x_BSD: Tensor, ids_BS1: Tensor) -> None:
    """Let the modules of multi-token prediction read the stream behind the last layer. Shapes: [B, S, D], [B, S+1]"""
    for _ in model.predicted(x_BSD, ids_BS1, routing):
        pass
