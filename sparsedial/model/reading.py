"""A checkpoint folder, ours or another's, as a stream of named tensors; all is checked before a value is read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sparsedial.errors import UserError
from sparsedial.model.digests import verify
from sparsedial.model.layouts import as_read
from sparsedial.model.stored import InBlocks, Stored, faults_of, stored_of
from sparsedial.model.stream import NamedTensor
from sparsedial.shape.config import load_config, no_folder, read_config, tensor_rules
from sparsedial.shape.counts import total_parameters
from sparsedial.shape.hugging_face.held import SCALE, held
from sparsedial.shape.hugging_face.names import repeated_names
from sparsedial.shape.hugging_face.quantised import quantised_by
from sparsedial.shape.hugging_face.values import Config
from sparsedial.shape.rules import MISSING, Expected, Layout, Rule, expected_tensors, misfits, written_tensors
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

    Experts may be single tensors or fused, one tensor per layer. Modules of multi-token prediction that only the
    configuration or only the files have are left out. Where a tied model's files hold another head, it is untied.

    Raises: UserError for damaged files, another family, or a list of missing, unexpected, wrongly shaped tensors.
    """
    if not folder.is_dir():
        raise no_folder(folder)
    verify(folder)
    config = load_config(folder)
    described = read_config(config)
    rules = tensor_rules(config, described)
    stored = stored_of(folder)
    _require_read(folder, config, stored)
    block = _block(config)
    files = held(described, rules, stored)
    shape, found = files.shape, files.tensors
    expected = expected_tensors(rules, shape)
    problem = _too_large(folder, shape, found) or _misfit(folder, shape, rules, expected, found, block)
    if problem:
        raise problem
    return Checkpoint(shape=shape, tensors=tuple(_stream(expected, found, shape, block, dtype)))


def _require_read(folder: Path, config: Config, found: Found) -> None:
    """Raises: UserError for weights that are quantised in a way that is not read, or that are said to be."""
    method = quantised_by(config, found)
    if method is not None:
        raise UserError(
            f"{folder}: its weights are quantised by {method}, which is not read",
            hint="use the folder that they were made from, or bring them back to bfloat16 first; where they are plain"
            " already, take quantization_config out of config.json",
        )


def _too_large(folder: Path, shape: Shape, found: Found) -> UserError | None:
    """What is wrong, before memory is allocated, where the configuration describes a far larger model."""
    counted = total_parameters(shape, with_mtp=True)
    held = sum(math.prod(tensor.size) for tensor in found.values())
    if counted <= 2 * held:
        return None
    return UserError(
        f"{folder}: its config.json describes {human_count(counted)} parameters, its files hold {human_count(held)}",
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


def _misfit(
    folder: Path,
    shape: Shape,
    rules: Sequence[Rule],
    expected: Mapping[str, Expected],
    found: Found,
    block: tuple[int, int],
) -> UserError | None:
    """A list of what is missing, unexpected, wrongly shaped or not readable."""
    scales = {name for name in found if name.endswith(SCALE) and name.removesuffix(SCALE) in found}
    sizes = {name: tensor.size for name, tensor in found.items()}
    faults = misfits(expected, written_tensors(rules, shape), sizes, repeated_names(shape) | scales)
    for name, tensor in found.items():
        if name in expected and expected[name].size == tensor.size:
            faults += faults_of(tensor, found.get(name + SCALE), block)
    if not faults:
        return None
    missing = [fault for fault in faults if fault.startswith(MISSING)]
    others = [fault for fault in faults if not fault.startswith(MISSING)]
    shown = [*missing[: max(3, 5 - len(others))], *others[: max(3, 5 - len(missing))]]  # names of both sides
    more = f" and {len(faults) - len(shown)} more" if len(faults) > len(shown) else ""
    return UserError(f"{folder}: {'; '.join(shown)}{more}")


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
                name=piece.name,
                size=part.size,
                dtype=part.dtype,
                origin=f"{stored.file}: {stored.name}",
                values=part.read,
                stored_bytes=part.stored_bytes if isinstance(part, InBlocks) else None,
            )
            yield _in_our_layout(lying, tensor.layout, shape)


def _in_our_layout(tensor: NamedTensor, layout: Layout, shape: Shape) -> NamedTensor:
    return tensor.mapped(lambda values: as_read(values, layout, tensor.name, shape))
