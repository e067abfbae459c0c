"""A checkpoint as a stream: the tensors of a model by their canonical names, each fetched on demand.

Reading a folder gives such a stream, a model gives one, and writing a folder takes one. What lies between is a function
from stream to stream: it drops tensors, renames others and changes values, with one tensor in memory at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sparsedial.shape.tensors import Name, Size


@dataclass(frozen=True, kw_only=True)
class NamedTensor:
    """One tensor of a model: what it is and where it lies, without its values."""

    name: Name
    size: Size
    dtype: torch.dtype
    origin: str  # where it lies, for messages
    values: Callable[[], Tensor] = field(repr=False, compare=False)  # may share memory with their origin
    stored_bytes: int | None = None  # in its file, where its values take more: weights in 8-bit blocks

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return math.prod(self.size) * self.dtype.itemsize

    @property
    def file_bytes(self) -> int:
        """Bytes of it where it lies."""
        return self.nbytes if self.stored_bytes is None else self.stored_bytes

    def mapped(self, function: Callable[[Tensor], Tensor], size: Size | None = None) -> NamedTensor:
        """The same tensor after a function of its values, which changes its size to `size`."""
        values = self.values
        return replace(self, size=self.size if size is None else size, values=lambda: function(values()))
