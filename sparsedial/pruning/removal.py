"""Turning experts off: as masks on a whole model, and for good in the stream of a checkpoint's tensors. E experts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from sparsedial.model.stream import NamedTensor
from sparsedial.pruning.kept import Kept, sparse_layers
from sparsedial.shape.shape import Shape
from sparsedial.shape.tensors import EXPERTS

BY_EXPERT = ("router", "routing_bias")  # tensors with a row for each expert of their layer


def masks(kept: Kept, shape: Shape) -> dict[int, Tensor]:
    """Which experts of each sparse layer are on, for `Routing.kept`. Shapes: each [E] of bool"""
    found = {}
    for number, layer in sparse_layers(shape).items():
        found[number] = torch.zeros(layer.experts, dtype=torch.bool)
        found[number][list(kept.experts[number])] = True
    return found


def without_experts(tensors: Iterable[NamedTensor], kept: Kept) -> Iterator[NamedTensor]:
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
