"""Hugging Face's `config.json` in and out; their names exist in this file and in checkpoint files only."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from sparsedial.errors import UserError, nearest
from sparsedial.settings import fill
from sparsedial.shape.defaults import DEFAULTS
from sparsedial.shape.shape import RopeScaling, Shape

# Fields that change the model, and the only values of them that we build.
PLAIN = {
    "attention_bias": (None, False),
    "mlp_bias": (None, False),
    "clip_qkv": (None,),
    "hidden_act": (None, "silu"),
    "partial_rotary_factor": (None, 1.0),
}
MOST_LAYERS = 10_000


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
    rope = _rope(config)
    return {
        "layers": _whole(config, "num_hidden_layers"),
        "d_model": d_model,
        "heads": heads,
        "kv_heads": _whole(config, "num_key_value_heads", heads),
        "head_dim": _whole(config, "head_dim", d_model // max(heads, 1)),
        "d_ff": _whole(config, "intermediate_size"),
        "vocab_size": _whole(config, "vocab_size"),
        "context": _whole(config, "max_position_embeddings"),
        "tied_embeddings": _truth(config, "tie_word_embeddings"),
        "norm_eps": _positive(config, "rms_norm_eps"),
        "rope_theta": _positive(config if rope.get("rope_theta") is None else rope, "rope_theta"),
        "rope_scaling": _scaling(config, rope),
        "mtp_layers": _whole(config, "num_nextn_predict_layers", 0),
    }


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the config says of rotary positions: under the old name, as `transformers` has it, before the new one."""
    name = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    rope = config.get(name) or {}
    if not isinstance(rope, Mapping):
        raise UserError(f"config: {name}={rope!r} is no table of names and values")
    kinds = [key for key, value in rope.items() if isinstance(value, Mapping)]
    if kinds:
        raise UserError(f"config: {name} by layer type ({', '.join(map(str, kinds))}) is not supported")
    return rope


def _scaling(config: Mapping[str, Any], rope: Mapping[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind in ("default", None):
        return None
    if not isinstance(kind, str) or kind not in ("yarn", "llama3", "linear"):
        raise UserError(f"config: rope_type={kind!r} is not supported", hint="default, linear, llama3 or yarn")
    first = "original_max_position_embeddings"
    values: dict[str, Any] = {
        "factor": rope.get("factor"),
        "original_context": config.get(first) or rope.get(first) or config.get("max_position_embeddings"),
        **{ours: rope[theirs] for ours, theirs in ROPE_NAMES.items() if _states(rope, theirs)},
    }
    for name, value in values.items():
        if not (isinstance(value, bool) if name == "truncate" else _is_number(value)):
            raise UserError(f"config: rope_scaling's {ROPE_NAMES.get(name, name)}={value!r} is not readable for {kind}")
    return RopeScaling(kind=kind, **{**values, "original_context": int(values["original_context"])})  # type: ignore


def _states(rope: Mapping[str, Any], name: str) -> bool:
    """Whether a table of rotary positions sets a value of its own; YaRN's borders take 0 for their default."""
    value = rope.get(name)
    return value is not None and not (name in ("beta_fast", "beta_slow") and value == 0)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


ROPE_NAMES = {
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "truncate": "truncate",
    "attention_factor": "attention_factor",
    "mscale": "mscale",
    "mscale_all_dim": "mscale_all_dim",
    "low_frequency_factor": "low_freq_factor",
    "high_frequency_factor": "high_freq_factor",
}


def _written_rope(shape: Shape) -> dict[str, Any]:
    scaling = shape.rope_scaling
    if scaling is None:
        return {"rope_type": "default", "rope_theta": shape.rope_theta}
    names = {"yarn": list(ROPE_NAMES)[:4], "llama3": list(ROPE_NAMES)[6:], "linear": []}[scaling.kind]
    # Latent attention reads the scales of the logits beside a stretch of any kind.
    values = {ROPE_NAMES[name]: getattr(scaling, name) for name in (*names, "mscale", "mscale_all_dim")}
    return {
        "rope_type": scaling.kind,
        "rope_theta": shape.rope_theta,
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.original_context,
        **{name: value for name, value in values.items() if value is not None and (value or "mscale" not in name)},
    }


def _window_from(config: Mapping[str, Any]) -> dict[str, int]:
    """Qwen3's: a sliding window where it is switched on, from the layer `max_window_layers` on."""
    kinds, layers = config.get("layer_types"), _whole(config, "num_hidden_layers")
    if not config.get("use_sliding_window"):
        return {}
    full = min(_whole(config, "max_window_layers"), layers)
    if kinds is not None:
        full = kinds.index("sliding_attention") if "sliding_attention" in kinds else layers
        if kinds != ["full_attention"] * full + ["sliding_attention"] * (layers - full):
            raise UserError("config: layer_types mixes full and sliding attention in an order that is not supported")
    window = _whole(config, "sliding_window", 0)
    return {"window": window, "full_layers": full} if window and full < layers else {}


def _whole(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = config.get(name)
    if value is None:
        if default is None:
            raise UserError(f"config: '{name}' is missing")
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UserError(f"config: {name}={value!r} is not a whole number from 0 on")
    return value


def _positive(config: Mapping[str, Any], name: str) -> float:
    value = config.get(name)
    if not _is_number(value) or value <= 0:
        raise UserError(f"config: {name}={value!r} is not a number above 0")
    return float(value)


def _truth(config: Mapping[str, Any], name: str) -> bool:
    """A switch; null is off."""
    value = config.get(name)
    if not isinstance(value, bool | None):
        raise UserError(f"config: {name}={value!r} is neither true nor false")
    return bool(value)


def _whole_config(config: Mapping[str, Any], family: str) -> dict[str, Any]:
    """A configuration with the fields that it leaves out, each under the one name that is read here."""
    names = {"num_mtp_layers": "num_nextn_predict_layers"}
    counted = FAMILIES[family].experts
    if counted:
        names |= dict.fromkeys(EXPERT_COUNTS, counted)
    renamed = {names[name]: value for name, value in config.items() if name in names and value is not None}
    return {**DEFAULTS[family], **renamed, **config}


def _llama(config: Mapping[str, Any]) -> dict[str, Any]:
    return {}


def _qwen3(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"qk_norm": "head", **_window_from(config)}


def _mixtral(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "window": _whole(config, "sliding_window", 0),
        "experts": _whole(config, "num_local_experts"),
        "top_k": _whole(config, "num_experts_per_tok"),
        "d_expert": _whole(config, "intermediate_size"),
        "d_ff": 0,
    }


def _olmoe(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "experts": _whole(config, "num_experts"),
        "top_k": _whole(config, "num_experts_per_tok"),
        "d_expert": _whole(config, "intermediate_size"),
        "d_ff": 0,
        "normalize_gates": _truth(config, "norm_topk_prob"),
        "qk_norm": "full",
    }


def _qwen3_moe(config: Mapping[str, Any]) -> dict[str, Any]:
    only, step = config.get("mlp_only_layers") or [], _whole(config, "decoder_sparse_step")
    if step < 1:
        raise UserError(f"config: decoder_sparse_step={step} is below 1")
    if not isinstance(only, list):
        raise UserError(f"config: mlp_only_layers={only!r} is no list of layers")
    return {
        "experts": _whole(config, "num_experts"),
        "top_k": _whole(config, "num_experts_per_tok"),
        "d_expert": _whole(config, "moe_intermediate_size"),
        "normalize_gates": _truth(config, "norm_topk_prob"),
        "qk_norm": "head",
        "window": _whole(config, "sliding_window", 0) if config.get("use_sliding_window") else 0,
        **_dense_where(config, lambda layer: layer not in only and (layer + 1) % step == 0),
    }


def _dense_where(config: Mapping[str, Any], sparse: Callable[[int], bool]) -> dict[str, Any]:
    """Which layers stay dense, by a rule that says which are sparse."""
    kinds = [sparse(layer) for layer in range(_whole(config, "num_hidden_layers"))]
    if not any(kinds):
        raise UserError("config: no layer of it is sparse", hint="read it as its dense family")
    leading = kinds.index(True)
    places = tuple(layer for layer, kind in enumerate(kinds) if layer > leading and not kind)
    return {"dense_layers": leading, "dense_places": places}


def _routed_like_v3(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "dense_layers": _whole(config, "first_k_dense_replace", 0),
        "experts": _whole(config, "n_routed_experts"),
        "top_k": _whole(config, "num_experts_per_tok"),
        "shared_experts": _whole(config, "n_shared_experts", 0),
        "d_expert": _whole(config, "moe_intermediate_size"),
        "gate": "sigmoid",
        "normalize_gates": _truth(config, "norm_topk_prob"),
        "routed_scaling": _positive(config, "routed_scaling_factor"),
        "routing_bias": True,
        "expert_groups": _whole(config, "n_group", 1),
        "kept_groups": _whole(config, "topk_group", 1),
    }


def _glm4_moe(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_routed_like_v3(config),
        "qk_norm": "head" if config.get("use_qk_norm") else "none",
        "attention_bias": _truth(config, "attention_bias"),
    }


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
    grouped = config.get("topk_method") == "group_limited_greedy"
    return {
        **_routed_like_v3(config),
        **_latent(config),
        "gate": "softmax",
        "routing_bias": False,
        "normalize_gates": False,
        "expert_groups": _whole(config, "n_group", 1) if grouped else 1,
        "kept_groups": _whole(config, "topk_group", 1) if grouped else 1,
    }


def _deepseek_v3(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**_routed_like_v3(config), **_latent(config)}


WHOLE = {**PLAIN, "sliding_window": (None,)}

FAMILIES = {
    "llama": Family(architecture="LlamaForCausalLM", experts=None, read=_llama, plain=WHOLE),
    "qwen3": Family(architecture="Qwen3ForCausalLM", experts=None, read=_qwen3, plain=PLAIN),
    "mixtral": Family(architecture="MixtralForCausalLM", experts="num_local_experts", read=_mixtral, plain=PLAIN),
    "olmoe": Family(architecture="OlmoeForCausalLM", experts="num_experts", read=_olmoe, plain=WHOLE),
    "qwen3_moe": Family(
        architecture="Qwen3MoeForCausalLM",
        experts="num_experts",
        read=_qwen3_moe,
        plain=PLAIN,
    ),
    "glm4_moe": Family(
        architecture="Glm4MoeForCausalLM",
        experts="n_routed_experts",
        read=_glm4_moe,
        plain={**WHOLE, "attention_bias": (None, False, True), "partial_rotary_factor": (1.0,)},
    ),
    "deepseek_v2": Family(
        architecture="DeepseekV2ForCausalLM",
        experts="n_routed_experts",
        read=_deepseek_v2,
        plain={
            **WHOLE,
            "moe_layer_freq": (None, 1),
            "scoring_func": (None, "softmax"),
            "norm_topk_prob": (None, False),
            "topk_method": (None, "greedy", "group_limited_greedy"),
        },
    ),
    "deepseek_v3": Family(
        architecture="DeepseekV3ForCausalLM",
        experts="n_routed_experts",
        read=_deepseek_v3,
        plain={
            **WHOLE,
            "moe_layer_freq": (None, 1),
            "scoring_func": (None, "sigmoid"),
            "topk_method": (None, "noaux_tc"),
        },
    ),
}
ALIASES = {"kimi_k2": "deepseek_v3"}
EXPERT_COUNTS = ("n_routed_experts", "num_experts", "num_local_experts")  # by which release of `transformers` wrote it
# Biases on query, key and value alone, as in our attention; the others have one on the output too, or none.
BIASED = ("glm4_moe",)
OWN = "sparsedial"  # the model type of shapes that no family fits: read here alone


def read_config(source: Path | Mapping[str, Any]) -> Shape:
    """The Shape that a `config.json`, a folder with one, or its content describes.

    Raises: UserError for another family, or a field that changes the model in a way that is not supported, by name.
    """
    config, place = (_load(source), str(source)) if isinstance(source, Path) else (source, "config")
    kind = config.get("model_type")
    if kind is None:
        raise UserError(f"{place}: no 'model_type', so the family is unknown")
    if kind == OWN:
        shape = config.get("shape")
        if not isinstance(shape, Mapping):
            raise UserError(f"{place}: 'shape' is missing, or no table of names and values")
        return fill(Shape, shape, place)
    kind = str(kind)
    name = ALIASES.get(kind, kind)
    if name not in FAMILIES:
        raise UserError(
            f"{place}: model_type '{kind}' is not supported",
            hint=nearest(kind, FAMILIES) or f"supported are {', '.join([*FAMILIES, *ALIASES])}",
        )
    family, config = FAMILIES[name], _whole_config(config, name)
    stated = {**config, **_rope(config)}
    for field, allowed in family.plain.items():
        if stated.get(field) not in allowed:
            raise UserError(f"{place}: {field}={stated[field]!r} is not supported for {kind}")
    if _whole(config, "num_hidden_layers") > MOST_LAYERS:
        raise UserError(f"{place}: num_hidden_layers={config['num_hidden_layers']} is more than {MOST_LAYERS:,}")
    kinds = config.get("layer_types") or []
    if not isinstance(kinds, list) or not all(kind in ("full_attention", "sliding_attention") for kind in kinds):
        raise UserError(f"{place}: layer_types={kinds!r} is not supported", hint="full_attention, sliding_attention")
    values = {**_common(config), **family.read(config)}
    if values.get("experts") and not (values.get("dense_layers") or values.get("dense_places")):
        values["d_ff"] = 0  # stated, but no layer has it
    return Shape(**values)


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


def fitting_family(shape: Shape) -> str | None:
    """The model type whose class computes exactly this shape, or None."""
    if shape.logit_cap or shape.top_p < 1 or shape.own_layers:
        return None
    fitting = (name for name, rule in RULES.items() if rule(shape))
    return next((name for name in fitting if not shape.attention_bias or name in BIASED), None)


def family_of(shape: Shape) -> str:
    """The model type whose class computes exactly this shape.

    Raises: UserError where no family fits, with what stands in the way.
    """
    name = fitting_family(shape)
    if name is not None:
        return name
    if shape.logit_cap or shape.top_p < 1:
        raise UserError(
            f"shape: no published family has logit_cap={shape.logit_cap:g} with top_p={shape.top_p:g}",
            hint="0 and 1 are what they have",
        )
    if shape.own_layers:
        raise UserError("shape: no published family has layers that differ (own_layers)")
    raise UserError(
        f"shape: no published family has gate={shape.gate}, shared_experts={shape.shared_experts},"
        f" dense_layers={shape.dense_layers}, window={shape.window}, qk_norm={shape.qk_norm},"
        f" attention_bias={shape.attention_bias}, head_dim={shape.head_dim} for heads={shape.heads} of"
        f" d_model={shape.d_model} together"
    )


def _plain_softmax(shape: Shape) -> bool:
    """A softmax router without anything beside its experts."""
    return (
        shape.experts > 0
        and not shape.latent_attention
        and shape.gate == "softmax"
        and not shape.shared_experts
        and shape.routed_scaling == 1
        and shape.expert_groups == 1
        and not shape.routing_bias
    )


def _divided(shape: Shape) -> bool:
    """What `transformers` asks of some families, whatever their head_dim."""
    return shape.d_model % shape.heads == 0


RULES: dict[str, Callable[[Shape], bool]] = {
    "deepseek_v3": lambda s: (
        s.latent_attention and s.gate == "sigmoid" and s.routing_bias and s.shared_experts > 0 and not s.dense_places
    ),
    "deepseek_v2": lambda s: (
        s.latent_attention
        and s.gate == "softmax"
        and not s.routing_bias
        and not s.normalize_gates
        and s.shared_experts > 0
        and not s.dense_places
        and _divided(s)
    ),
    "qwen3": lambda s: not s.experts and not s.latent_attention and s.qk_norm == "head",
    "llama": lambda s: (
        not s.experts and not s.latent_attention and s.qk_norm == "none" and not s.window and _divided(s)
    ),
    "glm4_moe": lambda s: (
        s.experts > 0
        and not s.latent_attention
        and s.gate == "sigmoid"
        and s.routing_bias
        and s.qk_norm in ("head", "none")
        and not s.window
        and not s.dense_places
    ),
    "qwen3_moe": lambda s: _plain_softmax(s) and s.qk_norm == "head" and not s.full_layers,
    "olmoe": lambda s: (
        _plain_softmax(s)
        and s.qk_norm == "full"
        and not (s.window or s.dense_feed_forwards)
        and s.heads * s.head_dim == s.d_model
    ),
    "mixtral": lambda s: (
        _plain_softmax(s)
        and s.qk_norm == "none"
        and s.normalize_gates
        and not s.dense_feed_forwards
        and not s.full_layers
    ),
}


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
        "rope_parameters": _written_rope(shape),
        "tie_word_embeddings": shape.tied_embeddings,
        "torch_dtype": dtype,
        "vocab_size": shape.vocab_size,
    }
    if not shape.latent_attention:
        config["head_dim"] = shape.head_dim
    if shape.rope_scaling is not None:  # the name that older releases of `transformers` and llama.cpp read
        config["rope_scaling"] = {**config["rope_parameters"], "type": shape.rope_scaling.kind}
    if shape.mtp_layers or "num_nextn_predict_layers" in DEFAULTS[name]:
        config["num_nextn_predict_layers"] = shape.mtp_layers
    return {**config, **_window_fields(shape, name), **_sparse_fields(shape, name)}


def own_config(shape: Shape, *, dtype: str = "float32", end_token: int | None = None) -> dict[str, Any]:
    """The `config.json` of a checkpoint that Sparsedial alone reads, for shapes that no family fits."""
    return {"model_type": OWN, "torch_dtype": dtype, "eos_token_id": end_token, "shape": shape.record()}


def _window_fields(shape: Shape, family: str) -> dict[str, Any]:
    if not shape.window:
        return {}
    fields: dict[str, Any] = {"sliding_window": shape.window}
    if family != "mixtral":
        fields["use_sliding_window"] = True
    if family == "qwen3":
        fields["max_window_layers"] = shape.full_layers
    return fields


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
        dense = [layer for layer in range(shape.layers) if not shape.is_sparse(layer)]
        return {**fields, "decoder_sparse_step": 1, "mlp_only_layers": dense}
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
            "scoring_func": shape.gate,
            "topk_method": "noaux_tc",
        }
    if family == "deepseek_v2":
        fields["topk_method"] = "group_limited_greedy" if shape.expert_groups > 1 else "greedy"
    return fields
