"""One setting of a dial made a checkpoint of its own: skipped layers go, those that stay are numbered anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from sparsedial.model.stream import NamedTensor
from sparsedial.shape.shape import Shape


def without_layers(tensors: Iterable[NamedTensor], kept: Sequence[int], shape: Shape) -> Iterator[NamedTensor]:
    """The stream of a checkpoint with these of its layers; modules of multi-token prediction stay after the last."""
    modules = range(shape.layers, shape.layers + shape.mtp_layers)
    places: dict[int | None, int | None] = {layer: place for place, layer in enumerate([*kept, *modules])}
    places[None] = None
    for tensor in tensors:
        if tensor.name.layer in places:
            yield replace(tensor, name=replace(tensor.name, layer=places[tensor.name.layer]))
