"""Tensors in safetensors files: where each lies, read one at a time, brought back from blocks of 8 bits.

Files are read, not mapped: pages of a mapped file count as the process's memory for as long as it is open.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sparsedial.errors import UserError

TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
}
SCALE = "_scale_inv"  # behind the name of a weight in 8 bits: the factor of each block of it


@dataclass(frozen=True)
class Stored:
    """One tensor of a file."""

    file: Path
    start: int  # of its bytes in the file
    nbytes: int
    size: tuple[int, ...]
    kind: str  # its type as the file names it

    @property
    def in_blocks(self) -> bool:
        """Whether its values are in 8 bits, to be multiplied by the factors of their blocks."""
        return self.kind.startswith("F8_")

    def read(self, memory: Tensor | None = None) -> Tensor:
        """Its values, in `memory` where some is given: bytes, enough of them, which the next reading overwrites.

        Raises: UserError where the file has become shorter.
        """
        data = (torch.empty(self.nbytes, dtype=torch.uint8) if memory is None else memory)[: self.nbytes]
        with open(self.file, "rb") as file:
            file.seek(self.start)
            if file.readinto(data.numpy()) != self.nbytes:  # type: ignore[arg-type]
                raise UserError(f"{self.file}: cut short while it was read")
        return data.view(TYPES[self.kind]).view(self.size)


def stored_in(file: Path) -> dict[str, Stored]:
    """Every tensor of a safetensors file by its name.

    Raises: UserError where it is none.
    """
    try:
        with safe_open(file, "pt"):
            pass  # its header fits the file
        with open(file, "rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            header = json.loads(handle.read(length))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: not readable as safetensors ({error})") from error
    header.pop("__metadata__", None)
    return {name: _entry(file, 8 + length, values) for name, values in header.items()}


def _entry(file: Path, first: int, values: dict) -> Stored:
    start, end = values["data_offsets"]
    return Stored(file, first + start, end - start, tuple(values["shape"]), values["dtype"])


def faults_of(name: str, found: dict[str, Stored], block: tuple[int, int]) -> list[str]:
    """Why a weight cannot be read as it lies in its file."""
    weight, scale = found[name], found.get(name + SCALE)
    if weight.kind not in TYPES:
        return [f"{name} is {weight.kind}, no type of floating-point weights"]
    if not weight.in_blocks:
        return [] if scale is None else [f"{name} is {weight.kind} and has scales {name + SCALE}"]
    if scale is None:
        return [f"{name} is {weight.kind} without its scales {name + SCALE}"]
    if scale.kind not in TYPES:
        return [f"{name + SCALE} is {scale.kind}, no type of floating-point factors"]
    if len(weight.size) < 2:
        return [f"{name} is {weight.kind} without the two axes of a block"]
    *others, rows, columns = weight.size
    expected = [*others, -(-rows // block[0]), -(-columns // block[1])]
    return [] if list(scale.size) == expected else [f"{name + SCALE} is {list(scale.size)} instead of {expected}"]


def dequantised(weight: Tensor, scale: Tensor, block: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """A weight in 8 bits times its blocks' factors, multiplied in float32; a block of rows at a time.

    Shapes: [..., O, N] and [..., O / rows, N / columns] rounded up, to [..., O, N]
    Source: DeepSeek-V3 (arXiv 2412.19437), section 3.3
    """
    rows, columns = block
    result = torch.empty(weight.shape, dtype=dtype)
    matrices = (tensor.view(-1, *tensor.shape[-2:]) for tensor in (weight, scale, result))
    for weight_ON, scale_RC, result_ON in zip(*matrices, strict=True):
        factors_RN = scale_RC.float().repeat_interleave(columns, 1)[:, : weight_ON.shape[1]]
        for start, factors_N in zip(range(0, len(weight_ON), rows), factors_RN, strict=True):
            torch.mul(weight_ON[start : start + rows].float(), factors_N, out=result_ON[start : start + rows])
    return result
