"""Qwen3-MoE: any layers sparse, softmax gates, norms on each head's queries and keys, one window for all layers."""

from __future__ import annotations

from sparsedial.shape.families.family import Family
from sparsedial.shape.hugging_face import core, limits, names, window
from sparsedial.shape.hugging_face.routing import read_like_qwen, written_like_qwen
from sparsedial.shape.hugging_face.values import Config, Fields
from sparsedial.shape.shape import Shape


def _read(config: Config) -> Fields:
    return {
        **read_like_qwen(config),
        "qk_norm": "head",
        "window": config.whole("sliding_window", 0) if config.get("use_sliding_window") else 0,
    }


def _written(shape: Shape) -> Fields:
    return {**window.written_window(shape), **written_like_qwen(shape)}


QWEN3_MOE = Family(
    model_type="qwen3_moe",
    architecture="Qwen3MoeForCausalLM",
    defaults={
        **core.DEFAULTS,
        **window.DEFAULTS,
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32_768,
        "decoder_sparse_step": 1,
        "moe_intermediate_size": 768,
        "num_experts_per_tok": 8,
        "num_experts": 128,
        "norm_topk_prob": False,
        "mlp_only_layers": None,
    },
    only=core.ONLY,
    experts="num_experts",
    read=_read,
    written=_written,
    limits=(
        *limits.SPARSE,
        limits.GROUPED,
        limits.WHOLE_HEADS,
        *limits.PLAIN_ROUTER,
        limits.only("qk_norm", "head", reason="it norms each head's queries and keys"),
        limits.ONE_WINDOW,
        limits.OUTPUT_BIAS,
    ),
    tensors=(
        *names.TRUNK,
        *names.PROJECTIONS,
        *names.NORMS,
        *names.DENSE,
        *names.experts("mlp"),
        *names.PREDICTION,
    ),
)
