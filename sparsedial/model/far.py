"""A model whose layers stay in their files: each is read when it computes, and forgotten after it.

So a model that is larger than memory can read a text, if slowly: a layer is read again for each batch, unless it is
held. What holds of its weights in memory is the embedding, the un-embedding, and one layer.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from sparsedial.machine.hardware import give_back_memory
from sparsedial.model.cache import Place
from sparsedial.model.checkpoint import fill
from sparsedial.model.rotary import rotary_table
from sparsedial.model.router import Routing
from sparsedial.model.stream import NamedTensor
from sparsedial.model.transformer import READY_POSITIONS, Block, SparseFeedForward, Transformer
from sparsedial.model.weights import views_of, views_of_block
from sparsedial.shape.shape import Shape


def far_model(shape: Shape, tensors: Iterable[NamedTensor]) -> Transformer:
    """A model of a Shape in float32, whose layers are read from a stream of all its tensors when they compute.

    Weights of its layers have no values outside of `forward`, and cannot be changed.

    Raises: UserError for values that are not finite; those of a layer are checked when it computes.
    """
    rotary = rotary_table(shape, min(shape.context, READY_POSITIONS))
    with torch.device("meta"):
        model = Transformer(shape, rotary)
    inside = {id(parameter) for block in model.every_block for parameter in block.parameters()}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in inside:
                setattr(module, name, nn.Parameter(torch.empty(parameter.shape), requires_grad=False))
    views, of_layer = views_of(model), defaultdict[int | None, list[NamedTensor]](list)
    for tensor in tensors:
        if views[tensor.name].is_meta:
            of_layer[tensor.name.layer].append(tensor)
        else:
            fill(views[tensor.name], tensor)
    for number in range(shape.layers):
        model.blocks[number] = FarBlock(shape, number, of_layer[number])
    for number, module in enumerate(model.predictions, start=shape.layers):
        module.block = FarBlock(shape, number, of_layer[number])
    return model.eval()


class FarBlock(Block):
    """A layer that is read when it computes and forgotten after it, unless it is held."""

    def __init__(self, shape: Shape, number: int, tensors: Sequence[NamedTensor]) -> None:
        """`tensors` are those of the layer."""
        with torch.device("meta"):
            super().__init__(shape, number)
        self.number, self._tensors, self._held = number, tensors, False

    def forward(self, x_BSD: Tensor, place: Place, routing: Routing) -> Tensor:
        with held(self):
            return super().forward(x_BSD, place, routing)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within it the layer is in memory, and its weights may be changed until its end."""
        if self._held:
            yield
            return
        self._read()
        self._held = True
        try:
            yield
        finally:
            self._held = False
            self.to("meta")
            give_back_memory()

    @torch.no_grad()
    def _read(self) -> None:
        self.to_empty(device="cpu")
        if isinstance(self.feed_forward, SparseFeedForward):
            self.feed_forward.load_E.zero_()
        views = views_of_block(self, self.number)
        for tensor in self._tensors:
            fill(views[tensor.name], tensor)


def held(block: Block) -> contextlib.AbstractContextManager[None]:
    """Within it a layer that lies in files is in memory, so that it is read once however often it computes."""
    return block.held() if isinstance(block, FarBlock) else contextlib.nullcontext()


def is_far(block: Block) -> bool:
    """Whether a layer lies in files."""
    return isinstance(block, FarBlock)
