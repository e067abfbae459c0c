"""Hugging Face's `config.json` in and out; their names exist in this file and in checkpoint files only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsedial.errors import UserError, nearest
from sparsedial.shape.shape import Shape

# Fields that change the model, and the only values of them that we build.
PLAIN = {
    "attention_bias": (None, False),
    "mlp_bias": (None, False),
    "clip_qkv": (None,),
    "sliding_window": (None,),
    "hidden_act": (None, "silu"),
    "use_sliding_window": (None, False),
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one model type says what a Shape says."""

    architecture: str
    experts: str | None  # its name for the number of routed experts; None for dense families
    read: Callable[[Mapping[str, Any]], dict[str, Any]]  # what differs from the common fields
    plain: dict[str, tuple[Any, ...]]  # fields that must have one of these values


def _common(config: Mapping[str, Any]) -> dict[str, Any]:
    heads = _whole(config, "num_attention_heads")
    d_model = _whole(config, "hidden_size")
    rope = config.get("rope_parameters") or {}
    return {
        "layers": _whole(config, "num_hidden_layers"),
        "d_model": d_model,
        "heads": heads,
        "kv_heads": _whole(config, "num_key_value_heads", heads),
        "head_dim": _whole(config, "head_dim", d_model // max(heads, 1)),
        "d_ff": _whole(config, "intermediate_size"),
        "vocab_size": _whole(config, "vocab_size"),
        "context": _whole(config, "max_position_embeddings"),
        "tied_embeddings": bool(config.get("tie_word_embeddings", False)),
        "norm_eps": float(config.get("rms_norm_eps", 1e-6)),
        "rope_theta": float(config.get("rope_theta") or rope.get("rope_theta") or 10_000.0),
    }


def _whole(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = config.get(name)
    if value is None:
        if default is None:
            raise UserError(f"config: '{name}' is missing")
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UserError(f"config: {name}={value!r} is not a whole number from 0 on")
    return value


def _experts(config: Mapping[str, Any]) -> int:
    """The number of routed experts, under any of the names that releases of `transformers` give it."""
    names = [name for name in ("n_routed_experts", "num_experts", "num_local_experts") if config.get(name) is not None]
    return _whole(config, names[0] if names else "num_experts")


def _llama(config: Mapping[str, Any]) -> dict[str, Any]:
    return {}


def _qwen3(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"qk_norm": "head"}


def _mixtral(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "experts": _experts(config),
        "top_k": _whole(config, "num_experts_per_tok"),
        "d_expert": _whole(config, "intermediate_size"),
        "d_ff": 0,
    }


def _olmoe(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "experts": _experts(config),
        "top_k": _whole(config, "num_experts_per_tok"),
        "d_expert": _whole(config, "intermediate_size"),
        "d_ff": 0,
        "normalize_gates": bool(config.get("norm_topk_prob", False)),
        "qk_norm": "full",
    }


def _qwen3_moe(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "experts": _experts(config),
        "top_k": _whole(config, "num_experts_per_tok"),
        "d_expert": _whole(config, "moe_intermediate_size"),
        "normalize_gates": bool(config.get("norm_topk_prob", False)),
        "qk_norm": "head",
    }


def _routed_like_v3(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "experts": _experts(config),
        "top_k": _whole(config, "num_experts_per_tok"),
        "shared_experts": _whole(config, "n_shared_experts", 0),
        "d_expert": _whole(config, "moe_intermediate_size"),
        "dense_layers": _whole(config, "first_k_dense_replace", 0),
        "gate": "sigmoid",
        "normalize_gates": bool(config.get("norm_topk_prob", True)),
        "routed_scaling": float(config.get("routed_scaling_factor", 1.0)),
        "routing_bias": True,
        "expert_groups": _whole(config, "n_group", 1),
        "kept_groups": _whole(config, "topk_group", 1),
        "mtp_layers": _whole(config, "num_nextn_predict_layers", 0),
    }


def _glm4_moe(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**_routed_like_v3(config), "qk_norm": "head" if config.get("use_qk_norm") else "none"}


def _latent(config: Mapping[str, Any]) -> dict[str, Any]:
    nope, rope = _whole(config, "qk_nope_head_dim"), _whole(config, "qk_rope_head_dim")
    return {
        "kv_lora_rank": _whole(config, "kv_lora_rank"),
        "q_lora_rank": _whole(config, "q_lora_rank", 0),
        "nope_head_dim": nope,
        "rope_head_dim": rope,
        "v_head_dim": _whole(config, "v_head_dim"),
        "head_dim": nope + rope,
    }


def _deepseek_v2(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_routed_like_v3(config),
        **_latent(config),
        "gate": "softmax",
        "routing_bias": False,
        "normalize_gates": bool(config.get("norm_topk_prob", False)),
        "expert_groups": _whole(config, "n_group", 1),
        "mtp_layers": 0,
    }


def _deepseek_v3(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**_routed_like_v3(config), **_latent(config)}


EVERY_LAYER_SPARSE = {"decoder_sparse_step": (None, 1), "mlp_only_layers": (None, [], ())}

FAMILIES = {
    "llama": Family(architecture="LlamaForCausalLM", experts=None, read=_llama, plain=PLAIN),
    "qwen3": Family(architecture="Qwen3ForCausalLM", experts=None, read=_qwen3, plain=PLAIN),
    "mixtral": Family(architecture="MixtralForCausalLM", experts="num_local_experts", read=_mixtral, plain=PLAIN),
    "olmoe": Family(architecture="OlmoeForCausalLM", experts="num_experts", read=_olmoe, plain=PLAIN),
    "qwen3_moe": Family(
        architecture="Qwen3MoeForCausalLM",
        experts="num_experts",
        read=_qwen3_moe,
        plain={**PLAIN, **EVERY_LAYER_SPARSE},
    ),
    "glm4_moe": Family(
        architecture="Glm4MoeForCausalLM",
        experts="n_routed_experts",
        read=_glm4_moe,
        plain={**PLAIN, "partial_rotary_factor": (1.0,)},
    ),
    "deepseek_v2": Family(
        architecture="DeepseekV2ForCausalLM",
        experts="n_routed_experts",
        read=_deepseek_v2,
        plain={**PLAIN, "moe_layer_freq": (None, 1)},
    ),
    "deepseek_v3": Family(
        architecture="DeepseekV3ForCausalLM",
        experts="n_routed_experts",
        read=_deepseek_v3,
        plain={**PLAIN, "moe_layer_freq": (None, 1), "scoring_func": (None, "sigmoid")},
    ),
}
ALIASES = {"kimi_k2": "deepseek_v3"}


def read_config(source: Path | Mapping[str, Any]) -> Shape:
    """The Shape that a `config.json`, a folder with one, or its content describes.

    Rotary scaling changes neither counts nor what is trained at the original context, and is passed over here.

    Raises: UserError for another family, or a field that changes the model in a way that is not supported, by name.
    """
    config, place = (_load(source), str(source)) if isinstance(source, Path) else (source, "config")
    kind = config.get("model_type")
    if kind is None:
        raise UserError(f"{place}: no 'model_type', so the family is unknown")
    name = ALIASES.get(kind, kind)
    if name not in FAMILIES:
        raise UserError(
            f"{place}: model_type '{kind}' is not supported",
            hint=nearest(kind, FAMILIES) or f"supported are {', '.join([*FAMILIES, *ALIASES])}",
        )
    family = FAMILIES[name]
    stated = {**(config.get("rope_parameters") or {}), **config}
    for field, allowed in family.plain.items():
        if stated.get(field) not in allowed and not _harmless(field, config):
            raise UserError(f"{place}: {field}={stated.get(field)!r} is not supported for {kind}")
    values = {**_common(config), **family.read(config)}
    if values.get("experts") and not values.get("dense_layers"):
        values["d_ff"] = 0  # stated, but no layer has it
    return Shape(**values)


def _harmless(field: str, config: Mapping[str, Any]) -> bool:
    """A sliding window that the config itself switches off."""
    return field == "sliding_window" and config.get("use_sliding_window") is False


def _load(path: Path) -> dict[str, Any]:
    file = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such file") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not readable as JSON ({error})") from error
    if not isinstance(config, dict):
        raise UserError(f"{file}: holds no configuration")
    return config


def family_of(shape: Shape) -> str:
    """The model type whose class computes exactly this shape.

    Raises: UserError where no family fits.
    """
    if shape.latent_attention:
        return "deepseek_v3" if shape.gate == "sigmoid" else "deepseek_v2"
    if not shape.experts:
        if shape.qk_norm == "head":
            return "qwen3"
        if shape.qk_norm == "none":
            return "llama"
    elif shape.gate == "sigmoid" and shape.routing_bias and shape.qk_norm in ("head", "none"):
        return "glm4_moe"
    elif shape.gate == "softmax" and not shape.shared_experts and not shape.dense_layers and shape.routed_scaling == 1:
        if shape.qk_norm == "head":
            return "qwen3_moe"
        if shape.qk_norm == "full":
            return "olmoe"
        if shape.normalize_gates:
            return "mixtral"
    raise UserError(
        f"shape: no published family has gate={shape.gate}, shared_experts={shape.shared_experts}"
        f" and qk_norm={shape.qk_norm} together"
    )


def write_config(shape: Shape, *, dtype: str = "float32", end_token: int | None = None) -> dict[str, Any]:
    """The `config.json` with which `transformers` builds this shape.

    Raises: UserError where no family fits.
    """
    name = family_of(shape)
    config: dict[str, Any] = {
        "architectures": [FAMILIES[name].architecture],
        "model_type": name,
        "attention_bias": shape.attention_bias,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": end_token,
        "hidden_act": "silu",
        "hidden_size": shape.d_model,
        "intermediate_size": shape.d_ff or shape.d_expert,
        "max_position_embeddings": shape.context,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": shape.tied_embeddings,
        "torch_dtype": dtype,
        "vocab_size": shape.vocab_size,
    }
    if not shape.latent_attention:
        config["head_dim"] = shape.head_dim
    return {**config, **_sparse_fields(shape, name)}


def _sparse_fields(shape: Shape, family: str) -> dict[str, Any]:
    if not shape.experts:
        return {}
    fields: dict[str, Any] = {FAMILIES[family].experts or "": shape.experts, "num_experts_per_tok": shape.top_k}
    if family == "mixtral":
        return fields
    fields["norm_topk_prob"] = shape.normalize_gates
    if family == "olmoe":
        return fields
    fields["moe_intermediate_size"] = shape.d_expert
    if family == "qwen3_moe":
        return {**fields, "decoder_sparse_step": 1, "mlp_only_layers": []}
    fields |= {
        "n_shared_experts": shape.shared_experts,
        "first_k_dense_replace": shape.dense_layers,
        "routed_scaling_factor": shape.routed_scaling,
        "n_group": shape.expert_groups,
        "topk_group": shape.kept_groups,
    }
    if family == "glm4_moe":
        fields |= {"use_qk_norm": shape.qk_norm == "head", "partial_rotary_factor": 1.0}
    if shape.latent_attention:
        fields |= {
            "kv_lora_rank": shape.kv_lora_rank,
            "q_lora_rank": shape.q_lora_rank or None,
            "qk_nope_head_dim": shape.nope_head_dim,
            "qk_rope_head_dim": shape.rope_head_dim,
            "v_head_dim": shape.v_head_dim,
            "num_nextn_predict_layers": shape.mtp_layers,
            "scoring_func": shape.gate,
        }
        if family == "deepseek_v2":
            fields["topk_method"] = "group_limited_greedy" if shape.expert_groups > 1 else "greedy"
    return fields
