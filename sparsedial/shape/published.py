"""Published models by name, and the one way from a word on the command line to a Shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sparsedial.errors import UserError, nearest
from sparsedial.settings import fill
from sparsedial.shape.config import load_config, read_config, tensor_rules
from sparsedial.shape.hugging_face.held import shape_beside_weights
from sparsedial.shape.shape import Shape
from sparsedial.store import DIGEST_KEY, parse_json

CONFIG = "config.json"
FILES = (CONFIG, "shape.json", "plan.json")  # in this order, where a folder is named
# DeepSeek's two generations of multi-head latent attention share these sizes.
LATENT: dict[str, Any] = {
    "head_dim": 192,
    "kv_lora_rank": 512,
    "nope_head_dim": 128,
    "rope_head_dim": 64,
    "v_head_dim": 128,
}
SIGMOID: dict[str, Any] = {"gate": "sigmoid", "routing_bias": True}


def _grouped(layers: int, d_model: int, heads: int, kv_heads: int, d_ff: int, head_dim: int = 128) -> dict[str, Any]:
    return {
        "layers": layers,
        "d_model": d_model,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "d_ff": d_ff,
    }


def _qwen3(layers: int, d_model: int, heads: int, kv_heads: int, d_ff: int, **more: Any) -> Shape:
    common = {"vocab_size": 151_936, "context": 40_960, "qk_norm": "head", "rope_theta": 1e6}
    return Shape(**{**_grouped(layers, d_model, heads, kv_heads, d_ff), **common, **more})


def _mixtral(layers: int, d_model: int, heads: int, d_expert: int, **more: Any) -> Shape:
    routed = {"experts": 8, "top_k": 2, "d_expert": d_expert, "norm_eps": 1e-5, "rope_theta": 1e6}
    return Shape(**{**_grouped(layers, d_model, heads, 8, 0), **routed, **more})


def _llama(layers: int, d_model: int, heads: int, kv_heads: int, d_ff: int, **more: Any) -> Shape:
    return Shape(**{**_grouped(layers, d_model, heads, kv_heads, d_ff, d_model // heads), "norm_eps": 1e-5, **more})


# Sizes as in each model's published config.json.
PUBLISHED: dict[str, Shape] = {
    "deepseek-v2": Shape(
        layers=60, d_model=5120, heads=128, kv_heads=128, d_ff=12_288, vocab_size=102_400, context=163_840,
        **LATENT, q_lora_rank=1536, experts=160, top_k=6, shared_experts=2, d_expert=1536, dense_layers=1,
        expert_groups=8, kept_groups=3, routed_scaling=16.0, normalize_gates=False,
    ),
    "deepseek-v2-lite": Shape(
        layers=27, d_model=2048, heads=16, kv_heads=16, d_ff=10_944, vocab_size=102_400, context=163_840,
        **LATENT, experts=64, top_k=6, shared_experts=2, d_expert=1408, dense_layers=1, normalize_gates=False,
    ),
    "deepseek-v3": Shape(
        layers=61, d_model=7168, heads=128, kv_heads=128, d_ff=18_432, vocab_size=129_280, context=163_840,
        **LATENT, **SIGMOID, q_lora_rank=1536, experts=256, top_k=8, shared_experts=1, d_expert=2048,
        dense_layers=3, expert_groups=8, kept_groups=4, routed_scaling=2.5, mtp_layers=1,
    ),
    "kimi-k2": Shape(
        layers=61, d_model=7168, heads=64, kv_heads=64, d_ff=18_432, vocab_size=163_840, context=131_072,
        **LATENT, **SIGMOID, q_lora_rank=1536, experts=384, top_k=8, shared_experts=1, d_expert=2048,
        dense_layers=1, routed_scaling=2.827, rope_theta=50_000.0,
    ),
    "mixtral-8x7b": _mixtral(32, 4096, 32, 14_336, vocab_size=32_000, context=32_768),
    "mixtral-8x22b": _mixtral(56, 6144, 48, 16_384, vocab_size=32_000, context=65_536),
    "olmoe-1b-7b": Shape(
        **_grouped(16, 2048, 16, 16, 0), vocab_size=50_304, context=4096, qk_norm="full", norm_eps=1e-5,
        experts=64, top_k=8, d_expert=1024, normalize_gates=False,
    ),
    "qwen3-30b-a3b": _qwen3(48, 2048, 32, 4, 0, experts=128, top_k=8, d_expert=768),
    "qwen3-235b-a22b": _qwen3(94, 4096, 64, 4, 0, experts=128, top_k=8, d_expert=1536),
    "qwen3-0.6b": _qwen3(28, 1024, 16, 8, 3072, tied_embeddings=True),
    "qwen3-1.7b": _qwen3(28, 2048, 16, 8, 6144, tied_embeddings=True),
    "qwen3-4b": _qwen3(36, 2560, 32, 8, 9728, tied_embeddings=True),
    "qwen3-8b": _qwen3(36, 4096, 32, 8, 12_288),
    "qwen3-14b": _qwen3(40, 5120, 40, 8, 17_408),
    "qwen3-32b": _qwen3(64, 5120, 64, 8, 25_600),
    "llama-2-7b": _llama(32, 4096, 32, 32, 11_008, vocab_size=32_000, context=4096),
    "llama-3-8b": _llama(32, 4096, 32, 8, 14_336, vocab_size=128_256, context=8192, rope_theta=5e5),
    "llama-3-70b": _llama(80, 8192, 64, 8, 28_672, vocab_size=128_256, context=8192, rope_theta=5e5),
    "tinyllama-1.1b": _llama(22, 2048, 32, 4, 5632, vocab_size=32_000, context=2048),
}  # fmt: skip


def find_shape(word: str) -> tuple[str, Shape]:
    """The name and the Shape of a `config.json`, a shape, a plan, a run, a folder with one, or a published model.

    Raises: UserError for an unknown name (with the nearest), or a file that is not a shape.
    """
    path = Path(word)
    if path.is_dir():
        found = next((path / name for name in FILES if (path / name).exists()), None)
        if found is None:
            raise UserError(f"{path}: holds none of {', '.join(FILES)}")
        return str(path), _in_folder(path, found)
    if path.exists() or path.suffix == ".json":
        return str(path), _read(path)
    name = word.lower().rpartition("/")[2]
    if name not in PUBLISHED:
        hint = nearest(name, PUBLISHED) or f"a path to a config.json, or one of {', '.join(PUBLISHED)}"
        raise UserError(f"no published model named '{word}'", hint=hint)
    return name, PUBLISHED[name]


def _in_folder(folder: Path, file: Path) -> Shape:
    """The Shape that a file describes, as far as the weights beside it do not say otherwise."""
    shape = _read(file)
    if file.name != CONFIG:
        return shape
    return shape_beside_weights(shape, tensor_rules(load_config(file), shape), folder)


def _read(path: Path) -> Shape:
    try:
        data = path.read_bytes()
        values = json.loads(data)  # others' files may hold Infinity in fields that mean nothing here
        if isinstance(values, dict) and "model_type" not in values:
            values = parse_json(data)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error
    if isinstance(values, dict) and "model_type" not in values and isinstance(values.get("shape"), dict):
        values = values["shape"]  # of a plan or a run
    if isinstance(values, dict) and "model_type" not in values and "d_model" in values:
        plain = {key: value for key, value in values.items() if key not in ("schema_version", DIGEST_KEY)}
        return fill(Shape, plain, str(path))
    return read_config(path)
