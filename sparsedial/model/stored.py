"""Tensors in safetensors files: where each lies, reading them whole or in parts, and dequantising 8-bit blocks.

Files are read, not mapped: pages of a mapped file count as the process's memory for as long as it is open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from sparsedial.errors import UserError
from sparsedial.shape.hugging_face.files import Entry, entries_in, entries_of
from sparsedial.shape.hugging_face.held import SCALE
from sparsedial.shape.tensors import Size

TYPES = {  # in the order in which safetensors lays them out
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


@dataclass(frozen=True)
class Stored(Entry):
    """One tensor of a file, whose values can be read."""

    @property
    def in_blocks(self) -> bool:
        """Whether its values are in 8 bits, to be multiplied by the factors of their blocks."""
        return self.kind.startswith("F8_")

    @property
    def dtype(self) -> torch.dtype:
        """The type of its values."""
        return TYPES[self.kind]

    def cut(self, rows: tuple[int, int], number: int | None = None) -> Stored:
        """Some rows of it, or of one of a stack, as the range of the file's bytes that holds them."""
        start, size = self.start, self.size
        if number is not None:
            start, size = start + number * (self.nbytes // size[0]), size[1:]
        row_bytes = math.prod(size[1:]) * self.dtype.itemsize
        count = rows[1] - rows[0]
        return replace(self, start=start + rows[0] * row_bytes, nbytes=count * row_bytes, size=(count, *size[1:]))

    def read(self) -> Tensor:
        """Its values.

        Raises: UserError where the file has become shorter, or is gone.
        """
        data = torch.empty(self.nbytes, dtype=torch.uint8)
        try:
            with open(self.file, "rb") as file:
                file.seek(self.start)
                if file.readinto(data.numpy()) != self.nbytes:  # type: ignore[arg-type]
                    raise UserError(f"{self.file}: cut short while it was read")
        except OSError as error:
            raise UserError(f"{self.file}: not readable any more ({error.strerror or error})") from error
        return data.view(self.dtype).view(self.size)


def stored_in(file: Path) -> dict[str, Stored]:
    """Every tensor of a safetensors file by its name.

    Raises: UserError where it is not one.
    """
    return {name: Stored(**vars(entry)) for name, entry in entries_in(file).items()}


def stored_of(folder: Path) -> dict[str, Stored]:
    """Every tensor of a folder by its name in its files.

    Raises: UserError where its files are not readable, or two of them hold one tensor.
    """
    return {name: Stored(**vars(entry)) for name, entry in entries_of(folder).items()}


def faults_of(weight: Stored, scale: Stored | None, block: tuple[int, int]) -> list[str]:
    """Why a weight, with its factors where there are some, cannot be read from its file."""
    if weight.kind not in TYPES:
        return [f"{weight.name} is {weight.kind}, not a floating-point type that is read"]
    if scale is None:
        return [f"{weight.name} is {weight.kind} without its scales {weight.name}{SCALE}"] if weight.in_blocks else []
    if not weight.in_blocks:
        return [f"{weight.name} is {weight.kind} and has scales {scale.name}"]
    if scale.kind not in TYPES:
        return [f"{scale.name} is {scale.kind}, not a floating-point type that is read"]
    if len(weight.size) < 2:
        return [f"{weight.name} is {weight.kind} without the two axes of a block"]
    *others, rows, columns = weight.size
    expected = [*others, -(-rows // block[0]), -(-columns // block[1])]
    return [] if list(scale.size) == expected else [f"{scale.name} is {list(scale.size)} instead of {expected}"]


@dataclass(frozen=True)
class InBlocks:
    """An 8-bit weight with the factors of its blocks, which is read as `dtype`."""

    weight: Stored
    factors: Stored
    block: tuple[int, int]  # rows and columns
    dtype: torch.dtype
    first: int = 0  # of its rows in their block

    @property
    def size(self) -> Size:
        """The size of the weight."""
        return self.weight.size

    @property
    def stored_bytes(self) -> int:
        """Bytes in its file."""
        return self.weight.nbytes + self.factors.nbytes

    def cut(self, rows: tuple[int, int], number: int | None = None) -> InBlocks:
        """Some rows of it, or of one of a stack, and the factors of the blocks that hold them."""
        height, start = self.block[0], self.first + rows[0]
        blocks = start // height, -(-(self.first + rows[1]) // height)
        weight, factors = self.weight.cut(rows, number), self.factors.cut(blocks, number)
        return replace(self, weight=weight, factors=factors, first=start % height)

    def read(self) -> Tensor:
        """Its values."""
        return dequantised(self.weight.read(), self.factors.read(), self.block, self.dtype, self.first)


def dequantised(
    weight_ON: Tensor, factors_RC: Tensor, block: tuple[int, int], dtype: torch.dtype, first: int = 0
) -> Tensor:
    """An 8-bit weight times its blocks' factors, multiplied in float32, one block of rows at a time.

    Its first row is row `first` of its block.

    Shapes: [O, N] and [O / rows, N / columns] rounded up, to [O, N]
    Source: DeepSeek-V3 (arXiv 2412.19437), section 3.3
    """
    rows, columns = block
    outs, ins = weight_ON.shape
    result_ON = torch.empty(outs, ins, dtype=dtype)
    factors_RN = factors_RC.float().repeat_interleave(columns, 1)[:, :ins]
    edges = pairwise([0, *range(rows - first, outs, rows), outs])
    for factors_N, (start, end) in zip(factors_RN, edges, strict=True):
        torch.mul(weight_ON[start:end].float(), factors_N, out=result_ON[start:end])
    return result_ON
