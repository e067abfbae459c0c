"""Checkpoints as Hugging Face folders: written whole, verified when read.

Their matrices are stored [out, in]; ours multiply from the right, so each is transposed on the way. Fused projections
are split: query, key, value side by side in `w_qkv_DQ`, gate and up in `w_in`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sparsedial.errors import UserError
from sparsedial.model.transformer import Transformer
from sparsedial.shape.config import family_of, read_config, write_config
from sparsedial.shape.shape import Shape
from sparsedial.store import read_json, write_atomically, write_json
from sparsedial.text.tokenizer import Tokenizer

SUMMARY = "sparsedial.json"  # digests of the other files; a folder made by others has none
WEIGHTS = "model.safetensors"
MLP = {"mixtral": "block_sparse_moe"}
EXPERT_NAMES = {"mixtral": ("w1", "w3", "w2")}
ROUTER_BIAS = "gate.e_score_correction_bias"


def save_checkpoint(model: Transformer, folder: Path, tokenizer: Tokenizer | None = None) -> None:
    """Write a folder that `transformers` loads as it is: configuration, weights, tokenizer, digests.

    It appears under its name only when it is whole.

    Raises: UserError where no published family fits the shape, or the folder cannot be written.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    dtype = str(model.embedding_VD.dtype).removeprefix("torch.")
    config = write_config(model.shape, dtype=dtype, end_token=tokenizer.end_token if tokenizer else None)
    write_atomically(partial / "config.json", (json.dumps(config, indent=1) + "\n").encode())
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in to_hugging_face(model).items()}
    write_atomically(partial / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    if tokenizer is not None:
        tokenizer.save(partial)
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(partial.iterdir())}
    write_json(partial / SUMMARY, {"files_sha256": files})
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def load(folder: Path) -> Transformer:
    """Read a checkpoint folder, ours or another's, from safetensors only.

    Raises: UserError for damaged files, another family, or a list of missing, unexpected, wrongly shaped tensors.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    _verify(folder)
    shape = read_config(folder)
    model = Transformer(shape)
    wanted = dict(to_hugging_face(model).items())
    found = _read(folder)
    _compare(folder, {name: tuple(tensor.shape) for name, tensor in wanted.items()}, found)
    with torch.no_grad():
        from_hugging_face(model, found)
    return model.eval()


def _verify(folder: Path) -> None:
    if not (folder / SUMMARY).exists():
        return
    for name, sha256 in read_json(folder / SUMMARY)["files_sha256"].items():
        try:
            data = (folder / name).read_bytes()
        except OSError as error:
            raise UserError(f"{folder / name}: missing or unreadable", hint="the checkpoint is not whole") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise UserError(
                f"{folder / name}: its content does not match its digest", hint="it was cut short or edited"
            )


def _read(folder: Path) -> dict[str, Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(
            f"{folder}: no safetensors file", hint="weights are read from safetensors only, never from pickles"
        )
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            with safe_open(file, "pt") as handle:
                tensors |= {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118  # not a dict
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file}: not readable as safetensors ({error})") from error
    return tensors


def _compare(folder: Path, wanted: dict[str, tuple[int, ...]], found: dict[str, Tensor]) -> None:
    faults = [f"missing {name}" for name in wanted if name not in found]
    faults += [f"unexpected {name}" for name in found if name not in wanted]
    faults += [
        f"{name} is {list(found[name].shape)} instead of {list(size)}"
        for name, size in wanted.items()
        if name in found and tuple(found[name].shape) != size
    ]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise UserError(f"{folder}: {'; '.join(faults[:5])}{more}")


def _sections(model: Transformer) -> dict[str, Any]:
    """Where every published tensor lies in ours: name to (tensor of ours, its part), the part still transposed."""
    shape, family = model.shape, family_of(model.shape)
    places: dict[str, Any] = {"model.embed_tokens.weight": model.embedding_VD, "model.norm.weight": model.norm_D}
    if model.unembedding_VD is not None:
        places["lm_head.weight"] = model.unembedding_VD
    for layer, block in enumerate(model.blocks):
        prefix = f"model.layers.{layer}"
        places[f"{prefix}.input_layernorm.weight"] = block.attention_norm_D
        places[f"{prefix}.post_attention_layernorm.weight"] = block.feed_forward_norm_D
        places |= _attention_places(block.attention, f"{prefix}.self_attn", shape)
        if block.feed_forward in model.sparse_feed_forwards:
            places |= _sparse_places(block.feed_forward, f"{prefix}.{MLP.get(family, 'mlp')}", family)
        else:
            places |= _dense_places(block.feed_forward, f"{prefix}.mlp")
    return places


def _attention_places(attention: Any, prefix: str, shape: Shape) -> dict[str, Any]:
    sizes = [shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.kv_heads * shape.head_dim]
    parts = zip("qkv", attention.w_qkv_DQ.split(sizes, 1), strict=True)
    places = {f"{prefix}.{letter}_proj.weight": part.t() for letter, part in parts}
    places[f"{prefix}.o_proj.weight"] = attention.w_out_QD.t()
    if attention.b_qkv_Q is not None:
        parts = zip("qkv", attention.b_qkv_Q.split(sizes), strict=True)
        places |= {f"{prefix}.{letter}_proj.bias": part for letter, part in parts}
    if shape.qk_norm != "none":
        places |= {f"{prefix}.q_norm.weight": attention.q_norm_C, f"{prefix}.k_norm.weight": attention.k_norm_C}
    return places


def _dense_places(feed_forward: Any, prefix: str) -> dict[str, Any]:
    gate_DF, up_DF = feed_forward.w_in_DH.chunk(2, 1)
    return {
        f"{prefix}.gate_proj.weight": gate_DF.t(),
        f"{prefix}.up_proj.weight": up_DF.t(),
        f"{prefix}.down_proj.weight": feed_forward.w_out_FD.t(),
    }


def _sparse_places(feed_forward: Any, prefix: str, family: str) -> dict[str, Any]:
    gate, up, down = EXPERT_NAMES.get(family, ("gate_proj", "up_proj", "down_proj"))
    places = {f"{prefix}.gate.weight": feed_forward.w_router_DE.t()}
    if feed_forward.bias_E is not None:
        places[f"{prefix}.{ROUTER_BIAS}"] = feed_forward.bias_E
    pairs = zip(feed_forward.w_in_EDH.unbind(0), feed_forward.w_out_EFD.unbind(0), strict=True)
    for expert, (w_in_DH, w_out_FD) in enumerate(pairs):
        gate_DF, up_DF = w_in_DH.chunk(2, 1)
        places[f"{prefix}.experts.{expert}.{gate}.weight"] = gate_DF.t()
        places[f"{prefix}.experts.{expert}.{up}.weight"] = up_DF.t()
        places[f"{prefix}.experts.{expert}.{down}.weight"] = w_out_FD.t()
    if feed_forward.shared is not None:
        places |= _dense_places(feed_forward.shared, f"{prefix}.shared_experts")
    return places


def to_hugging_face(model: Transformer) -> dict[str, Tensor]:
    """The model's tensors under published names, as views."""
    return {name: tensor.detach() for name, tensor in _sections(model).items()}


def from_hugging_face(model: Transformer, tensors: dict[str, Tensor]) -> None:
    """Copy published tensors into the model."""
    for name, view in _sections(model).items():
        view.detach().copy_(tensors[name])
