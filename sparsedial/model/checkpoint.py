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
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sparsedial.errors import UserError
from sparsedial.model.published import Part, fused_parts, parts_of, same_meaning
from sparsedial.model.transformer import Transformer
from sparsedial.shape.config import OWN, fitting_family, own_config, read_config, write_config
from sparsedial.shape.counts import total_parameters
from sparsedial.shape.shape import Shape
from sparsedial.store import read_json, write_atomically, write_json
from sparsedial.text.tokenizer import Tokenizer
from sparsedial.units import human_count

SUMMARY = "sparsedial.json"  # digests of the other files; a folder made by others has none
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 4e9
SCALE = "_scale_inv"  # behind the name of a weight in 8 bits: the factor of each block of it
PASSED_OVER = ("rotary_emb.inv_freq", ".embed_tokens.weight", ".shared_head.head.weight", "lm_head.weight")


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
    dtype = str(model.embedding_VD.dtype).removeprefix("torch.")
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

    Raises: UserError for damaged files, another family, values that are not finite, or a list of missing, unexpected,
    wrongly shaped tensors.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise UserError(f"model: {dtype} is no type of floating-point weights", hint="torch.float32 or torch.bfloat16")
    _verify(folder)
    shape, files = read_config(folder), _files(folder)
    config = json.loads((folder / "config.json").read_text())
    found = {name: (file, size) for file in files for name, size in _sizes(file).items()}
    if shape.mtp_layers and not any(name.startswith(f"model.layers.{shape.layers}.") for name in found):
        shape = replace(shape, mtp_layers=0)
    _check_size(folder, shape, found)
    model = empty_model(shape, dtype)
    family = fitting_family(shape) or OWN
    targets = _targets(folder, model, family, config.get("rope_interleave", True), found)
    with torch.no_grad():
        for file in files:
            here = {name: part for name, part in targets.items() if found[name][0] == file}
            _fill(file, here, {name: place for name, (place, _) in found.items()}, _block(config))
    return model.eval()


def _check_size(folder: Path, shape: Shape, found: Mapping[str, tuple[Path, tuple[int, ...]]]) -> None:
    """Raises: UserError, before memory is asked for, where the configuration speaks of a far larger model."""
    counted, held = total_parameters(shape), sum(math.prod(size) for _, size in found.values())
    if counted > 2 * held:
        raise UserError(
            f"{folder}: its config.json describes {human_count(counted)} parameters, its files hold"
            f" {human_count(held)}",
            hint="one of them belongs to another model, or files are missing",
        )


def empty_model(shape: Shape, dtype: torch.dtype) -> Transformer:
    """A model whose weights are not set yet."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return Transformer(shape)
    finally:
        torch.set_default_dtype(before)


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
    """The files of weights, those of the index where there is one."""
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


def _sizes(file: Path) -> dict[str, tuple[int, ...]]:
    with _opened(file) as handle:
        return {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118  # no dict


class _opened:
    """A safetensors file, its faults as UserErrors."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __enter__(self) -> Any:
        try:
            self.handle = safe_open(self.file, "pt")
            return self.handle.__enter__()
        except (SafetensorError, OSError) as error:
            raise UserError(f"{self.file}: not readable as safetensors ({error})") from error

    def __exit__(self, *reason: Any) -> None:
        self.handle.__exit__(*reason)


def _targets(
    folder: Path, model: Transformer, family: str, paired: bool, found: Mapping[str, tuple[Path, tuple[int, ...]]]
) -> dict[str, Part]:
    """Where each tensor of the files goes.

    Raises: UserError with the list of missing, unexpected and wrongly shaped ones.
    """
    parts, fused = parts_of(model, family, paired), fused_parts(model, family)
    renamed = same_meaning(found, family)
    targets: dict[str, Part] = {}
    covered: set[str] = set()
    faults: list[str] = []
    for name, (_, size) in found.items():
        ours = name if name in parts else renamed.get(name, name)
        if ours in parts:
            targets[name] = parts[ours]
            covered.add(ours)
        elif name in fused:
            targets[name], names = fused[name]
            covered |= names
        elif not name.endswith((*PASSED_OVER, SCALE)):
            faults.append(f"unexpected {name}")
        if name in targets and targets[name].size != size:
            faults.append(f"{name} is {list(size)} instead of {list(targets[name].size)}")
    faults = [f"missing {name}" for name in parts if name not in covered] + faults
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise UserError(f"{folder}: {'; '.join(faults[:5])}{more}")
    return targets


def _fill(file: Path, targets: Mapping[str, Part], places: Mapping[str, Path], block: tuple[int, int]) -> None:
    with _opened(file) as handle:
        for name, part in targets.items():
            tensor = handle.get_tensor(name)
            if tensor.dtype.itemsize == 1:
                if name + SCALE not in places:
                    raise UserError(f"{file}: {name} is {tensor.dtype} without its scales {name + SCALE}")
                with _opened(places[name + SCALE]) as other:
                    tensor = dequantised(tensor, other.get_tensor(name + SCALE), block)
            if not tensor.is_floating_point():
                raise UserError(f"{file}: {name} is {tensor.dtype}, no type of floating-point weights")
            if not bool(torch.isfinite(tensor).all()):
                raise UserError(f"{file}: {name} holds values that are not finite")
            part.fill(tensor)


def _block(config: Mapping[str, Any]) -> tuple[int, int]:
    try:
        rows, columns = (config.get("quantization_config") or {}).get("weight_block_size") or (128, 128)
        return int(rows), int(columns)
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"config: quantization_config={config['quantization_config']!r} names no blocks") from error


def dequantised(weight_ON: Tensor, scale: Tensor, block: tuple[int, int]) -> Tensor:
    """A weight in 8 bits times its blocks' factors, in float32; a block of rows at a time.

    Shapes: [O, N] and [O / rows, N / columns] rounded up, to [O, N]
    Source: DeepSeek-V3 (arXiv 2412.19437), section 3.3
    """
    rows, columns = block
    result_ON = torch.empty(weight_ON.shape)
    for place, start in enumerate(range(0, len(weight_ON), rows)):
        factors_N = scale[place].float().repeat_interleave(columns)[: weight_ON.shape[1]]
        torch.mul(weight_ON[start : start + rows].float(), factors_N, out=result_ON[start : start + rows])
    return result_ON
