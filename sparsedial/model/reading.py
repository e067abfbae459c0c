"""A checkpoint folder, ours or another's, as a stream of named tensors; all is checked before a value is read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sparsedial.errors import UserError
from sparsedial.model.digests import verify
from sparsedial.model.layouts import as_read
from sparsedial.model.shards import weight_files
from sparsedial.model.stored import SCALE, InBlocks, Stored, faults_of, stored_in
from sparsedial.model.stream import NamedTensor
from sparsedial.shape.config import load_config, read_config, tensor_rules
from sparsedial.shape.counts import total_parameters
from sparsedial.shape.hugging_face.names import repeated_names
from sparsedial.shape.hugging_face.values import Config
from sparsedial.shape.rules import Expected, Layout, Rule, expected_tensors, misfits, written_tensors
from sparsedial.shape.shape import Shape
from sparsedial.units import human_count

Found = Mapping[str, Stored]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a folder holds."""

    shape: Shape
    tensors: tuple[NamedTensor, ...]  # in the order of its files


def read_checkpoint(folder: Path, dtype: torch.dtype = torch.float32) -> Checkpoint:
    """The Shape and the tensors of a folder of safetensors; `dtype` is the type that 8-bit weights get.

    Experts may be single tensors or fused, one tensor per layer. Modules of multi-token prediction that the
    configuration has and the files lack are left out.

    Raises: UserError for damaged files, another family, or a list of missing, unexpected, wrongly shaped tensors.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    verify(folder)
    config = load_config(folder)
    shape = read_config(config)
    found = {name: tensor for file in weight_files(folder) for name, tensor in stored_in(file).items()}
    rules = tensor_rules(config, shape)
    if not _holds_modules(rules, shape, found):
        shape = replace(shape, mtp_layers=0)
    _check_size(folder, shape, found)
    expected, block = expected_tensors(rules, shape), _block(config)
    _check_tensors(folder, shape, rules, expected, found, block)
    return Checkpoint(shape=shape, tensors=tuple(_stream(expected, found, shape, block, dtype)))


def _holds_modules(rules: Sequence[Rule], shape: Shape, found: Found) -> bool:
    """Whether there is any tensor of multi-token prediction."""
    names = (rule.theirs.format(layer=shape.layers, expert=0) for rule in rules if "{layer}" in rule.theirs)
    return any(name in found for name in names)


def _check_size(folder: Path, shape: Shape, found: Found) -> None:
    """Raises: UserError, before memory is allocated, where the configuration describes a far larger model."""
    counted = total_parameters(shape, with_mtp=True)
    held = sum(math.prod(tensor.size) for tensor in found.values())
    if counted > 2 * held:
        raise UserError(
            f"{folder}: its config.json describes {human_count(counted)} parameters, its files hold"
            f" {human_count(held)}",
            hint="one of them belongs to another model, or files are missing",
        )


def _block(config: Config) -> tuple[int, int]:
    """Rows and columns of the blocks of weights in 8 bits."""
    stated = config.get("quantization_config")
    try:
        rows, columns = (stated or {}).get("weight_block_size") or (128, 128)
        if min(rows, columns) < 1:
            raise ValueError("no rows or no columns")
        return int(rows), int(columns)
    except (AttributeError, TypeError, ValueError) as error:
        raise config.error(f"quantization_config={stated!r} has no valid weight_block_size") from error


def _check_tensors(
    folder: Path,
    shape: Shape,
    rules: Sequence[Rule],
    expected: Mapping[str, Expected],
    found: Found,
    block: tuple[int, int],
) -> None:
    """Raises: UserError with the list of what is missing, unexpected, wrongly shaped or not readable."""
    scales = {name for name in found if name.endswith(SCALE) and name.removesuffix(SCALE) in found}
    sizes = {name: tensor.size for name, tensor in found.items()}
    faults = misfits(expected, written_tensors(rules, shape), sizes, repeated_names(shape) | scales)
    for name, tensor in found.items():
        if name in expected and expected[name].size == tensor.size:
            faults += faults_of(tensor, found.get(name + SCALE), block)
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise UserError(f"{folder}: {'; '.join(faults[:5])}{more}")


def _stream(
    expected: Mapping[str, Expected], found: Found, shape: Shape, block: tuple[int, int], dtype: torch.dtype
) -> Iterator[NamedTensor]:
    """Our tensors in the order of the files; fused ones are read in parts."""
    for name in sorted(found.keys() & expected.keys(), key=lambda name: (found[name].file, found[name].start)):
        stored, tensor = found[name], expected[name]
        source = InBlocks(stored, found[name + SCALE], block, dtype) if stored.in_blocks else stored
        for piece in tensor.pieces:
            part = source.cut(piece.rows, piece.expert)
            lying = NamedTensor(
                name=piece.name, size=part.size, dtype=part.dtype, origin=f"{stored.file}: {name}", values=part.read
            )
            yield _in_our_layout(lying, tensor.layout, shape)


def _in_our_layout(tensor: NamedTensor, layout: Layout, shape: Shape) -> NamedTensor:
    return tensor.mapped(lambda values: as_read(values, layout, tensor.name, shape))
