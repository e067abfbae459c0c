"""Which weights optimizers hold: whole ones, or the part of one that a rank owns."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.optim import Optimizer

from sparsedial.model.transformer import Transformer


@dataclass(frozen=True)
class Held:
    """A weight, or a part of one, in an optimizer."""

    optimizer: Optimizer
    weight: int  # its number among the model's parameters
    name: str
    first: int  # of its values
    tensor: Tensor  # the weight itself, or a view of it


def held_by(model: Transformer, optimizers: Sequence[Optimizer]) -> Iterator[Held]:
    """All that optimizers hold of a model. A part of a weight is known by its address, which lies within the weight."""
    named = list(model.named_parameters())
    starts = sorted((parameter.data_ptr(), number) for number, (_, parameter) in enumerate(named))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for tensor in group["params"]:
                address = tensor.data_ptr()
                start, number = starts[bisect_right(starts, (address, len(named))) - 1]
                name, whole = named[number]
                yield Held(optimizer, number, name, (address - start) // whole.element_size(), tensor)
