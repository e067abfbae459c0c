"""Files of weights, written into a folder: one, or several with their index.

They are laid out from names and sizes alone and filled tensor by tensor, in any order. safetensors itself writes a file
from all its tensors at once, which would hold a whole file in memory; the bytes are the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sparsedial.model.stored import TYPES
from sparsedial.model.stream import NamedTensor
from sparsedial.shape.hugging_face.files import INDEX, WEIGHTS
from sparsedial.shape.tensors import Name
from sparsedial.store import write_atomically

SHARD_BYTES = 4e9
KINDS = {dtype: kind for kind, dtype in TYPES.items()}


@dataclass(frozen=True)
class File:
    """A file of weights, laid out but not filled yet."""

    name: str
    header: bytes
    starts: Mapping[str, int]  # where the bytes of each tensor begin


def write_weights(tensors: Mapping[str, NamedTensor], order: Iterable[str], folder: Path, shard_bytes: float) -> None:
    """Write tensors to files in the order of `tensors`, whose names are those in files; values are fetched in `order`.

    Raises: OSError where they cannot be written; ValueError where values differ from their announced size or type.
    """
    files = _divided(tensors, shard_bytes)
    for file in files:
        (folder / file.name).write_bytes(file.header)
    file_of = {name: file for file in files for name in file.starts}
    for name in order:
        _write(tensors[name], folder / file_of[name].name, file_of[name].starts[name])
    for file in files:
        with open(folder / file.name, "rb") as written:
            os.fsync(written.fileno())
    if len(files) > 1:
        total = sum(tensor.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": {name: file_of[name].name for name in tensors}}
        write_atomically(folder / INDEX, (json.dumps(index, indent=1) + "\n").encode())


def write_file(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to one file, without a copy of all of them.

    Raises: OSError where it cannot be written.
    """
    named = {
        name: NamedTensor(
            name=Name(name), size=tuple(one.shape), dtype=one.dtype, origin="memory", values=lambda one=one: one
        )
        for name, one in tensors.items()
    }
    file = _laid_out(path.name, list(named), named)
    path.write_bytes(file.header)
    for name, tensor in named.items():
        _write(tensor, path, file.starts[name])


def _divided(tensors: Mapping[str, NamedTensor], shard_bytes: float) -> list[File]:
    """One file, or several of about `shard_bytes`."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += tensor.nbytes
    count = len(shards)
    files = [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
    files = [WEIGHTS] if count == 1 else files
    return [_laid_out(file, names, tensors) for file, names in zip(files, shards, strict=True)]


def _laid_out(file: str, names: Sequence[str], tensors: Mapping[str, NamedTensor]) -> File:
    """A file with the header that the library would write for these tensors: by type, then by name."""
    kinds = list(TYPES)
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    starts: dict[str, int] = {}
    end = 0
    for name in sorted(names, key=lambda name: (kinds.index(KINDS[tensors[name].dtype]), name)):
        tensor, starts[name] = tensors[name], end
        end += tensor.nbytes
        offsets = [starts[name], end]
        entries[name] = {"dtype": KINDS[tensor.dtype], "shape": list(tensor.size), "data_offsets": offsets}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    return File(file, header, {name: len(header) + start for name, start in starts.items()})


def _write(tensor: NamedTensor, path: Path, start: int) -> None:
    values = tensor.values()
    if (tuple(values.shape), values.dtype) != (tensor.size, tensor.dtype):
        raise ValueError(f"{tensor.name} is {list(values.shape)} of {values.dtype}, announced as {tensor}")
    data = values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    with open(path, "r+b") as file:
        file.seek(start)
        file.write(data)  # type: ignore[arg-type]
