"""A dense model's neurons divided among experts: which come together, the router that finds them, the split checkpoint.

B sequences, S positions, T tokens (B*S), D d_model, F neurons of a layer, E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import polars
import torch
from torch import Tensor

from sparsedial.evaluation.scorer import TOKENS_AT_ONCE
from sparsedial.kernels.reference import activate
from sparsedial.model.attention import rms_norm
from sparsedial.model.cache import Place
from sparsedial.model.router import Routing
from sparsedial.model.stream import NamedTensor
from sparsedial.model.transformer import Block, DenseFeedForward, Transformer
from sparsedial.pruning.clusters import balanced_clusters, told_together
from sparsedial.pruning.counts import best
from sparsedial.pruning.fitted_router import fitted_router
from sparsedial.pruning.in_turn import Passage, Turn, require_text_is_known
from sparsedial.pruning.sensitivity import sensitivities
from sparsedial.pruning.shelf import Group, Shelf
from sparsedial.pruning.split_sizes import SplitSizes, numbers_by_layer
from sparsedial.shape.shape import Shape
from sparsedial.shape.tensors import DENSE, EXPERTS, NEURON_AXES, SHARED, Name, resized
from sparsedial.shape.turned import Turned

FITTED_TOKENS = 16_384  # at most, that clusters and routers are made from
SILENT = 0.03  # what a neuron does at least, over the mean: the logarithm of less says nothing


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Where the neurons of each layer go, and its router."""

    sizes: SplitSizes
    neurons: Mapping[int, tuple[int, ...]]  # by their places before: the shared ones, then expert after expert
    routers: Mapping[int, Tensor]  # [D, E]

    def shape(self, shape: Shape) -> Shape:
        """The split model."""
        return self.sizes.shape(shape)

    def stream(self, tensors: Iterable[NamedTensor]) -> Iterator[NamedTensor]:
        """Its tensors, from those of the dense model. A matrix is read once where its parts are fetched in order."""
        whole = lru_cache(maxsize=1)(_values)
        for tensor in tensors:
            if tensor.name.part.startswith(DENSE):
                yield from self._parts(tensor, whole)
            else:
                yield tensor
        for layer, w_DE in self.routers.items():
            yield _router(layer, w_DE)

    def _parts(self, tensor: NamedTensor, whole: Callable[[NamedTensor], Tensor]) -> Iterator[NamedTensor]:
        """A dense layer's matrix as that of its shared part and those of its experts."""
        assert tensor.name.layer is not None
        kind = tensor.name.part.removeprefix(DENSE)
        axis = NEURON_AXES[kind]
        shared, experts = self.members(tensor.name.layer)
        names = [Name(f"{EXPERTS}{kind}", tensor.name.layer, expert) for expert in range(len(experts))]
        places = dict(zip(names, experts, strict=True))
        if shared:
            places = {Name(f"{SHARED}{kind}", tensor.name.layer): shared, **places}
        for name, members in places.items():
            values = partial(_picked, tensor, whole, members, axis)
            yield replace(tensor, name=name, size=resized(tensor.size, axis, len(members)), values=values)

    def members(self, layer: int) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
        """The neurons of a layer's shared part, and of each of its experts."""
        order = self.neurons[layer]
        width = len(order) // self.sizes.parts
        firsts = range(self.sizes.always * width, len(order), width)
        return order[: firsts.start], [order[first : first + width] for first in firsts]


def _values(tensor: NamedTensor) -> Tensor:
    return tensor.values()


def _picked(tensor: NamedTensor, whole: Callable[[NamedTensor], Tensor], members: Sequence[int], axis: int) -> Tensor:
    return whole(tensor).index_select(axis, torch.tensor(members))


def _router(layer: int, w_DE: Tensor) -> NamedTensor:
    w_ED = w_DE.t().contiguous()
    size = (w_ED.shape[0], w_ED.shape[1])
    return NamedTensor(
        name=Name("router", layer), size=size, dtype=w_ED.dtype, origin="the router", values=lambda: w_ED
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Divided:
    """A split, one whose neurons are drawn, and what the calibration showed of each neuron, by layer."""

    split: Split
    drawn: Split  # its routers are made alike
    activations: Mapping[int, np.ndarray]  # mean |activation|, [F]
    norms: Mapping[int, np.ndarray]  # of what a neuron writes, [F]
    growths: Mapping[int, np.ndarray]  # about how much the loss grows by each number of experts, nats per token, [E+1]

    @property
    def scores(self) -> dict[int, np.ndarray]:
        """How much each neuron writes into the stream. Shapes: each [F]"""
        return {layer: mean_F * self.norms[layer] for layer, mean_F in self.activations.items()}

    def setting(self, top_k: int) -> Turned:
        """So many experts per token in the mean over layers, in each as many as costs least; the default is even."""
        if top_k in (self.split.sizes.top_k, self.split.sizes.experts):
            return Turned(top_k=(top_k,))
        numbers = numbers_by_layer([growth_N.tolist() for growth_N in self.growths.values()], top_k)
        return Turned(top_k=numbers if len(set(numbers)) > 1 else numbers[:1])

    @property
    def table(self) -> polars.DataFrame:
        """A row for each neuron; those of the shared part have no expert."""
        return polars.concat(self._rows(layer) for layer in self.activations)

    def _rows(self, layer: int) -> polars.DataFrame:
        neurons = len(self.activations[layer])
        expert_of = {neuron: at for at, members in enumerate(self.split.members(layer)[1]) for neuron in members}
        columns = {
            "layer": [layer] * neurons,
            "neuron": range(neurons),
            "mean_activation": self.activations[layer],
            "outgoing_norm": self.norms[layer],
            "activation": self.scores[layer],
            "expert": [expert_of.get(neuron) for neuron in range(neurons)],
        }
        return polars.DataFrame(columns, schema_overrides={"expert": polars.Int64})


@torch.no_grad()
def divided(
    model: Transformer, windows_WS1: Tensor, sizes: SplitSizes, seed: int, shelf: Shelf | None = None
) -> Divided:
    """Divide the neurons of every layer by what a calibration shows of them, and once more by chance.

    What one layer makes of all tokens is in memory.

    Shapes: [W, S+1]
    Raises: UserError for a calibration text that the model knows less of than a uniform guess does.
    """
    shelf = Shelf() if shelf is None else shelf
    require_text_is_known(model, windows_WS1, shelf)
    passage, draw, drawn = Passage(model, windows_WS1, shelf), np.random.default_rng(seed), {}
    sensed_LDD = passage.found("sensitivities", lambda: {"by layer": sensitivities(model, windows_WS1)})["by layer"]()
    groups: list[Group] = []
    for turn in passage.turns():
        attended: list[Tensor] = []  # the stream between attention and neurons
        drawn[turn.number] = tuple(draw.permutation(model.shape.layer(turn.number).d_ff).tolist())
        groups.append(turn.found(partial(_divided, turn, attended, sizes, drawn[turn.number], sensed_LDD[turn.number])))
        turn.pass_on(partial(_from_attention, turn.block, iter(attended)))
    passage.end()

    def each(name: str) -> dict[int, Tensor]:
        return {layer: group[name]() for layer, group in enumerate(groups)}

    orders = {layer: tuple(order_F.int().tolist()) for layer, order_F in each("order").items()}
    return Divided(
        split=Split(sizes=sizes, neurons=orders, routers=each("router")),
        drawn=Split(sizes=sizes, neurons=drawn, routers=each("router of the drawn")),
        activations={layer: mean_F.numpy() for layer, mean_F in each("mean activation").items()},
        norms={layer: norm_F.numpy() for layer, norm_F in each("outgoing norm").items()},
        growths={layer: growth_N.numpy() for layer, growth_N in each("growth").items()},
    )


def _divided(
    turn: Turn, attended: list[Tensor], sizes: SplitSizes, drawn: tuple[int, ...], sensed_DD: Tensor
) -> dict[str, Tensor]:
    """Where the neurons of a layer go, the routers for that and for those that are drawn, and what neurons showed."""
    block, part = turn.block, turn.block.feed_forward
    assert isinstance(part, DenseFeedForward)
    attended += [block.attention(x_BSD, block.attention_norm_D, place) for x_BSD, place in turn.inputs]
    x_TD = torch.cat([rms_norm(x_BSD, block.feed_forward_norm_D, block.eps).flatten(0, 1) for x_BSD in attended])
    mean_F, norm_F, felt_FD = _mean_activation(part, x_TD), part.w_out_FD.norm(dim=1), part.w_out_FD @ sensed_DD
    some_TD = x_TD[:: -(-len(x_TD) // FITTED_TOKENS)]
    order = _order(part, some_TD, mean_F * norm_F.numpy(), sizes)
    routers, growths = [], []
    for neurons in (order, drawn):
        experts = Split(sizes=sizes, neurons={turn.number: neurons}, routers={}).members(turn.number)[1]
        done_TE = done(part, felt_FD, some_TD, experts)
        routers.append(fitted_router(some_TD, done_TE))
        growths.append(growth(some_TD @ routers[-1], done_TE))
    return {
        "order": torch.tensor(order, dtype=torch.float64),
        "router": routers[0],
        "router of the drawn": routers[1],
        "growth": growths[0],
        "mean activation": torch.from_numpy(mean_F),
        "outgoing norm": norm_F,
    }


def _from_attention(block: Block, attended: Iterator[Tensor], x_BSD: Tensor, place: Place) -> Tensor:
    """What a layer passes on, from the stream behind its attention."""
    return block.feed_forward(next(attended), block.feed_forward_norm_D, block.eps, Routing())


def _activations(part: DenseFeedForward, x_TD: Tensor) -> Iterator[Tensor]:
    """What multiplies each neuron's outgoing weights, some tokens at a time. Shapes: each [n, F]"""
    return (activate(x_nD @ part.w_in_DH) for x_nD in x_TD.split(TOKENS_AT_ONCE))


def _mean_activation(part: DenseFeedForward, x_TD: Tensor) -> np.ndarray:
    """The mean of each neuron's |activation|. Shapes: to [F], float64"""
    sums = [a_nF.abs().sum(0, dtype=torch.float64) for a_nF in _activations(part, x_TD)]
    return (torch.stack(sums).sum(0) / len(x_TD)).numpy()


def _order(part: DenseFeedForward, x_TD: Tensor, scores_F: np.ndarray, sizes: SplitSizes) -> tuple[int, ...]:
    """The neurons of the highest scores, which are shared, then those that are told together, expert after expert."""
    shared = best(scores_F, sizes.always * (len(scores_F) // sizes.parts))
    routed = np.setdiff1d(np.arange(len(scores_F)), shared)
    norm_R = part.w_out_FD.norm(dim=1)[routed]
    strengths = (a_nF[:, routed].abs() * norm_R for a_nF in _activations(part, x_TD))
    silent = max(SILENT * float(scores_F.mean()), torch.finfo(x_TD.dtype).tiny)
    labels_R = balanced_clusters(told_together(x_TD, strengths, silent).numpy(), sizes.experts)
    members = [routed[labels_R == expert] for expert in range(sizes.experts)]
    return (*shared, *(int(neuron) for expert in members for neuron in expert))


def done(part: DenseFeedForward, felt_FD: Tensor, x_TD: Tensor, experts: Sequence[Sequence[int]]) -> Tensor:
    """How much the loss minds that each of these groups of neurons is missing, for each token.

    `felt_FD` are the outgoing weights times the layer's sensitivity.

    Shapes: to [T, E]
    """
    pairs = [(torch.tensor(members), felt_FD[list(members)]) for members in experts]
    return torch.cat(
        [
            torch.stack([(a_nF[:, members] @ felt_MD).square().sum(1) for members, felt_MD in pairs], dim=1)
            for a_nF in _activations(part, x_TD)
        ]
    )


def growth(logits_TE: Tensor, done_TE: Tensor) -> Tensor:
    """About how much the loss grows where a token visits only its first 0, 1, 2 … experts by the router.

    What leaving each of the others out does is added up, as if they wrote in directions of their own.

    Units:  nats per token
    Shapes: to [E+1]
    """
    missed_TE = done_TE.gather(1, logits_TE.argsort(dim=1, descending=True)).flip(1).cumsum(1)
    return torch.cat([torch.zeros(1), missed_TE.mean(0)]).flip(0) / 2
