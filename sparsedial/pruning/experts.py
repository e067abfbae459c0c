"""Experts turned off: which stay, as masks on a whole model, and for good in a checkpoint's tensors. E experts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparsedial.model.stream import NamedTensor
from sparsedial.pruning.kept import every_layer
from sparsedial.records.prune import KeptParts
from sparsedial.shape.shape import Layer, Shape, with_layers
from sparsedial.shape.tensors import EXPERTS

BY_EXPERT = ("router", "routing_bias")  # tensors with a row for each expert of their layer


@dataclass(frozen=True)
class KeptExperts:
    """The experts that stay on, by sparse layer; modules of multi-token prediction follow the last layer."""

    experts: Mapping[int, tuple[int, ...]]  # rising

    def share(self, shape: Shape) -> float:
        """The share of all experts."""
        every = sum(layer.experts for layer in sparse_layers(shape).values())
        return sum(map(len, self.experts.values())) / every

    def shape(self, shape: Shape) -> Shape:
        """The model without the other experts."""
        layers = [self._layer(number, shape.layer(number)) for number in range(shape.layers)]
        return with_layers(shape, layers)

    def _layer(self, number: int, layer: Layer) -> Layer:
        return replace(layer, experts=len(self.experts[number])) if layer.is_sparse else layer

    def stream(self, tensors: Iterable[NamedTensor]) -> Iterator[NamedTensor]:
        """The tensors without those of the other experts."""
        return without_experts(tensors, self)

    def parts(self, shape: Shape) -> KeptParts:
        """The experts of each sparse layer."""
        experts = tuple(self.experts.values())
        return KeptParts(experts=experts, layers=every_layer(shape), d_ff=None, weights_share=None)


def sparse_layers(shape: Shape) -> dict[int, Layer]:
    """The sparse layers by number; modules of multi-token prediction follow the last layer."""
    layers = {number: shape.layer(number) for number in range(shape.layers + shape.mtp_layers)}
    return {number: layer for number, layer in layers.items() if layer.is_sparse}


def masks(kept: KeptExperts, shape: Shape) -> dict[int, Tensor]:
    """Which experts of each sparse layer are on, for `Routing.kept`. Shapes: each [E] of bool"""
    found = {}
    for number, layer in sparse_layers(shape).items():
        found[number] = torch.zeros(layer.experts, dtype=torch.bool)
        found[number][list(kept.experts[number])] = True
    return found


def without_experts(tensors: Iterable[NamedTensor], kept: KeptExperts) -> Iterator[NamedTensor]:
    """The stream without the experts that are off: their tensors, their rows of the router and of the routing bias.

    Those that stay are numbered anew, in their order.
    """
    places = {layer: {expert: place for place, expert in enumerate(on)} for layer, on in kept.experts.items()}
    for tensor in tensors:
        name = tensor.name
        on = {} if name.layer is None else places.get(name.layer, {})
        if on and name.part in BY_EXPERT:
            yield _rows(tensor, list(on))
        elif not name.part.startswith(EXPERTS):
            yield tensor
        elif name.expert in on:
            yield replace(tensor, name=replace(name, expert=on[name.expert]))


def _rows(tensor: NamedTensor, rows: list[int]) -> NamedTensor:
    return tensor.mapped(lambda values: values[rows], (len(rows), *tensor.size[1:]))
