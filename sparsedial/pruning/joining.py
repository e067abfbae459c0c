"""The joined dense checkpoint: its tensors from those of a split one, and a digest that says if they are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sparsedial.model.stream import NamedTensor
from sparsedial.shape.tensors import DENSE, EXPERTS, NEURON_AXES, SHARED, Name, resized


def joined(tensors: Iterable[NamedTensor], neurons: Sequence[Sequence[int]]) -> Iterator[NamedTensor]:
    """The tensors of the dense model; `neurons` says by layer where each neuron of the split one lay before."""
    given = {tensor.name: tensor for tensor in tensors}
    for name, tensor in given.items():
        if name.part != "router" and not name.part.startswith((SHARED, EXPERTS)):
            yield tensor
    for layer, places in enumerate(neurons):
        for kind, axis in NEURON_AXES.items():
            yield _whole([*_pieces(given, layer, kind)], Name(f"{DENSE}{kind}", layer), places, axis)


def _pieces(given: dict[Name, NamedTensor], layer: int, kind: str) -> Iterator[NamedTensor]:
    """The matrices of the shared part and of each expert, in their order."""
    if Name(f"{SHARED}{kind}", layer) in given:
        yield given[Name(f"{SHARED}{kind}", layer)]
    expert = 0
    while (name := Name(f"{EXPERTS}{kind}", layer, expert)) in given:
        yield given[name]
        expert += 1


def _whole(pieces: Sequence[NamedTensor], name: Name, places: Sequence[int], axis: int) -> NamedTensor:
    size = resized(pieces[0].size, axis, len(places))

    def values() -> Tensor:
        found = torch.cat([piece.values() for piece in pieces], dim=axis)
        return found.index_select(axis, torch.argsort(torch.tensor(places)))

    return replace(pieces[0], name=name, size=size, values=values)


def weights_digest(tensors: Iterable[NamedTensor]) -> str:
    """Hex SHA-256 of every bit of a model's weights, whatever the order and the files that they lie in."""
    found = hashlib.sha256()
    for tensor in sorted(tensors, key=lambda tensor: str(tensor.name)):
        found.update(f"{tensor.name} {tensor.dtype} {tensor.size}".encode())
        found.update(tensor.values().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
