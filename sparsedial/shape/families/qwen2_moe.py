"""Qwen2-MoE: any layers sparse, softmax gates, shared experts that a gate of their own weighs, biases or none."""

from __future__ import annotations

from sparsedial.shape.families.family import Family
from sparsedial.shape.hugging_face import core, limits, names, window
from sparsedial.shape.hugging_face.routing import read_like_qwen, written_like_qwen
from sparsedial.shape.hugging_face.values import Config, Fields
from sparsedial.shape.shape import Shape

SHARED_WIDTH = "shared_expert_intermediate_size"


def _read(config: Config) -> Fields:
    fields, width = read_like_qwen(config), config.whole(SHARED_WIDTH)
    expert = max(fields["d_expert"], 1)
    if fields["experts"] and (not width or width % expert):
        raise config.error(f"{SHARED_WIDTH}={width} is no multiple of moe_intermediate_size={fields['d_expert']}")
    return {
        **fields,
        "attention_bias": config.truth("qkv_bias"),
        "shared_experts": width // expert,
        "shared_gate": True,
        **window.read_windows(_with_layer_types(config)),
    }


def _with_layer_types(config: Config) -> Config:
    """Without `layer_types` every other one of the first `max_window_layers` layers has the window."""
    most = config.whole("max_window_layers")
    kinds = [window.KINDS[layer < most and layer % 2 == 0] for layer in range(config.whole("num_hidden_layers"))]
    return config if config.get("layer_types") else Config({**config.values, "layer_types": kinds}, config.origin)


def _written(shape: Shape) -> Fields:
    return {
        **window.written_window(shape),
        **({"layer_types": window.written_layer_types(shape)} if shape.window else {}),
        **written_like_qwen(shape),
        SHARED_WIDTH: shape.shared_experts * shape.d_expert,
        "qkv_bias": shape.attention_bias,
    }


QWEN2_MOE = Family(
    model_type="qwen2_moe",
    architecture="Qwen2MoeForCausalLM",
    defaults={
        **core.DEFAULTS,
        **window.DEFAULTS,
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 32_768,
        "max_window_layers": 28,
        "decoder_sparse_step": 1,
        "moe_intermediate_size": 1408,
        SHARED_WIDTH: 5632,
        "num_experts_per_tok": 4,
        "num_experts": 60,
        "norm_topk_prob": False,
        "mlp_only_layers": None,
        "qkv_bias": True,
    },
    only={**core.ONLY, **core.ANY_BIAS},
    experts="num_experts",
    read=_read,
    written=_written,
    limits=(
        *(*limits.SPARSE, limits.GROUPED, limits.WHOLE_HEADS, limits.NO_NORMS),
        *(*limits.SOFTMAX_ROUTER, limits.SHARED_GATE),
    ),
    tensors=(
        *(*names.TRUNK, *names.PROJECTIONS, *names.BIASES),
        *(*names.DENSE, *names.experts("mlp"), *names.SHARED_GATED),
        *names.PREDICTION,
    ),
)
