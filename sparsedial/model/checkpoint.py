"""Checkpoints as Hugging Face folders: written whole, verified when read, tensor by tensor."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from sparsedial.errors import UserError
from sparsedial.model.published import Part, fused_parts, parts_of, repeated_names, same_meaning
from sparsedial.model.stored import SCALE, TYPES, Stored, dequantised, faults_of, stored_in
from sparsedial.model.transformer import Transformer
from sparsedial.shape.config import OWN, fitting_family, own_config, read_config, write_config
from sparsedial.shape.counts import total_parameters
from sparsedial.shape.shape import Shape
from sparsedial.store import read_json, write_atomically, write_json
from sparsedial.text.tokenizer import Tokenizer
from sparsedial.units import dtype_name, human_count

SUMMARY = "sparsedial.json"  # digests of the other files; a folder made by others has none
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 4e9


def save_checkpoint(
    model: Transformer, folder: Path, tokenizer: Tokenizer | None = None, shard_bytes: float = SHARD_BYTES
) -> None:
    """Write a folder that `transformers` loads as it is: configuration, weights, tokenizer, digests.

    It appears under its name only when it is whole. A shape that no published family fits makes a folder that only
    Sparsedial reads, and others refuse by its model type.

    Raises: UserError where the folder cannot be written.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    family = fitting_family(model.shape)
    dtype = dtype_name(model.embedding_VD.dtype)
    end_token = tokenizer.end_token if tokenizer else None
    config = (write_config if family else own_config)(model.shape, dtype=dtype, end_token=end_token)
    write_atomically(partial / "config.json", (json.dumps(config, indent=1) + "\n").encode())
    try:
        _write_weights(parts_of(model, family or OWN), partial, shard_bytes)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(
            f"cannot write {folder}: {error.strerror or error}", hint="choose another folder, or free some space"
        ) from error
    if tokenizer is not None:
        tokenizer.save(partial)
    write_json(partial / SUMMARY, {"files_sha256": {path.name: _sha256(path) for path in sorted(partial.iterdir())}})
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _write_weights(parts: Mapping[str, Part], folder: Path, shard_bytes: float) -> None:
    """One file, or several of about `shard_bytes` with their index; a shard is in memory at a time."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, part in parts.items():
        if shards[-1] and size + part.view.nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += part.view.nbytes
    files = [WEIGHTS] if len(shards) == 1 else _shard_names(len(shards))
    for file, names in zip(files, shards, strict=True):
        save_file({name: parts[name].take().cpu() for name in names}, folder / file, metadata={"format": "pt"})
        with open(folder / file, "rb") as written:
            os.fsync(written.fileno())
    if len(shards) > 1:
        places = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        total = sum(part.view.nbytes for part in parts.values())
        index = {"metadata": {"total_size": total}, "weight_map": places}
        write_atomically(folder / INDEX, (json.dumps(index, indent=1) + "\n").encode())


def _shard_names(count: int) -> list[str]:
    return [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Transformer:
    """Read a checkpoint folder, ours or another's, from safetensors only, one tensor at a time.

    Experts may lie one by one or fused in one tensor a layer; weights in blocks of 8 bits are brought to `dtype`.
    Modules of multi-token prediction that the configuration promises and the files lack are left out.

    Raises: UserError for damaged files, another family, values that are not finite in `dtype`, or a list of missing,
    unexpected, wrongly shaped tensors.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if dtype not in TYPES.values() or dtype.itemsize == 1:
        raise UserError(
            f"model: {dtype} is no type of floating-point weights to compute with",
            hint="torch.float32 or torch.bfloat16",
        )
    _verify(folder)
    shape, files = read_config(folder), _files(folder)
    config = json.loads((folder / "config.json").read_text())
    found = {name: tensor for file in files for name, tensor in stored_in(file).items()}
    if shape.mtp_layers and not any(name.startswith(f"model.layers.{shape.layers}.") for name in found):
        shape = replace(shape, mtp_layers=0)
    _check_size(folder, shape, found)
    model = empty_model(shape, dtype)
    targets = _targets(folder, model, config, found)
    with torch.no_grad():
        _fill(targets, found, _block(config))
    return model.eval()


def _check_size(folder: Path, shape: Shape, found: Mapping[str, Stored]) -> None:
    """Raises: UserError, before memory is asked for, where the configuration speaks of a far larger model."""
    counted = total_parameters(shape, with_mtp=True)
    held = sum(math.prod(tensor.size) for tensor in found.values())
    if counted > 2 * held:
        raise UserError(
            f"{folder}: its config.json describes {human_count(counted)} parameters, its files hold"
            f" {human_count(held)}",
            hint="one of them belongs to another model, or files are missing",
        )


def empty_model(shape: Shape, dtype: torch.dtype) -> Transformer:
    """A model whose weights are not set yet.

    The routing bias is never narrower than float32, as in `transformers`: at 8, as in released models, bfloat16 would
    round away the differences by which it balances.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model = Transformer(shape)
    finally:
        torch.set_default_dtype(before)
    for layer in model.sparse_feed_forwards:
        if layer.bias_E is not None:
            layer.bias_E = layer.bias_E.to(torch.promote_types(dtype, torch.float32))
    return model


def _verify(folder: Path) -> None:
    if not (folder / SUMMARY).exists():
        return
    digests = read_json(folder / SUMMARY).get("files_sha256")
    if not isinstance(digests, dict) or any(Path(name).name != name for name in digests):
        raise UserError(f"{folder / SUMMARY}: holds no digests of this folder's files")
    for name, sha256 in digests.items():
        try:
            found = _sha256(folder / name)
        except OSError as error:
            raise UserError(f"{folder / name}: missing or unreadable", hint="the checkpoint is not whole") from error
        if found != sha256:
            raise UserError(
                f"{folder / name}: its content does not match its digest", hint="it was cut short or edited"
            )


def _files(folder: Path) -> list[Path]:
    """The files of weights: the one of the usual name, as `transformers` does, before those of the index."""
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if (folder / INDEX).exists():
        try:
            names = sorted({str(name) for name in json.loads((folder / INDEX).read_text())["weight_map"].values()})
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise UserError(f"{folder / INDEX}: not readable as an index of weights ({error})") from error
        lacking = [name for name in names if Path(name).name != name or not (folder / name).exists()]
        if lacking:
            raise UserError(f"{folder}: its index names {', '.join(lacking[:3])}, which is not there")
        return [folder / name for name in names]
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(
            f"{folder}: no safetensors file", hint="weights are read from safetensors only, never from pickles"
        )
    return files


def _targets(folder: Path, model: Transformer, config: Mapping[str, Any], found: dict[str, Stored]) -> dict[str, Part]:
    """Where each tensor of the files goes.

    Raises: UserError with the list of missing, unexpected, wrongly shaped and unreadable ones.
    """
    family, block = fitting_family(model.shape) or OWN, _block(config)
    paired = config["model_type"] == "deepseek_v2" or config.get("rope_interleave", True)
    parts, fused = parts_of(model, family, paired), fused_parts(model, family)
    renamed, repeated = same_meaning(found, family), repeated_names(model.shape)
    targets: dict[str, Part] = {}
    covered: set[str] = set()
    faults: list[str] = []
    for name, tensor in found.items():
        ours = name if name in parts else renamed.get(name, name)
        if ours in parts:
            targets[name] = parts[ours]
            covered.add(ours)
        elif name in fused:
            targets[name], names = fused[name]
            covered |= names
        elif not (name in repeated or (name.endswith(SCALE) and name.removesuffix(SCALE) in found)):
            faults.append(f"unexpected {name}")
        if name in targets and targets[name].size != tensor.size:
            faults.append(f"{name} is {list(tensor.size)} instead of {list(targets[name].size)}")
        elif name in targets:
            faults += faults_of(name, found, block)
    faults = [f"missing {name}" for name in parts if name not in covered] + faults
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise UserError(f"{folder}: {'; '.join(faults[:5])}{more}")
    return targets


def _fill(targets: Mapping[str, Part], found: Mapping[str, Stored], block: tuple[int, int]) -> None:
    """Every tensor in its place, in the order of the files; each takes over the memory of the one before."""
    memory = torch.empty(max(found[name].nbytes for name in targets), dtype=torch.uint8)
    for name in sorted(targets, key=lambda name: (found[name].file, found[name].start)):
        tensor, dtype = found[name].read(memory), targets[name].view.dtype
        if found[name].in_blocks:
            tensor = dequantised(tensor, found[name + SCALE].read(), block, dtype)
        extremes = torch.stack(tensor.aminmax())  # NaN where any value is
        if not bool(extremes.to(dtype).isfinite().all()):
            raise UserError(f"{found[name].file}: {name} holds values that are not finite in {dtype}")
        targets[name].fill(tensor)


def _block(config: Mapping[str, Any]) -> tuple[int, int]:
    try:
        rows, columns = (config.get("quantization_config") or {}).get("weight_block_size") or (128, 128)
        if min(rows, columns) < 1:
            raise ValueError("no rows or no columns")
        return int(rows), int(columns)
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"config: quantization_config={config['quantization_config']!r} names no blocks") from error
