"""A model whose layers stay in their files: each is read when it computes, and forgotten after it.

So a model that is larger than memory can read a text, if slowly: a layer is read again for each batch. What holds of
its weights in memory is the embedding, the un-embedding, and one layer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

from sparsedial.model.checkpoint import fill
from sparsedial.model.rotary import rotary_table
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
    for number, block in enumerate(model.every_block):
        block.register_forward_pre_hook(_reading(number, of_layer[number]))
        block.register_forward_hook(_forgetting)
    return model.eval()


def _reading(number: int, tensors: Sequence[NamedTensor]) -> Callable[[nn.Module, tuple], None]:
    @torch.no_grad()
    def read(block: nn.Module, given: tuple) -> None:
        assert isinstance(block, Block)
        block.to_empty(device="cpu")
        if isinstance(block.feed_forward, SparseFeedForward):
            block.feed_forward.load_E.zero_()
        views = views_of_block(block, number)
        for tensor in tensors:
            fill(views[tensor.name], tensor)

    return read


def _forgetting(block: nn.Module, given: tuple, after: torch.Tensor) -> None:
    block.to("meta")
