"""Mixtral: all layers sparse, softmax gates of the chosen experts that sum to one, a window for all layers or none."""

from __future__ import annotations

from sparsedial.shape.families.family import Family
from sparsedial.shape.hugging_face import core, limits, names
from sparsedial.shape.hugging_face.routing import read_experts
from sparsedial.shape.hugging_face.values import Config, Fields
from sparsedial.shape.shape import Shape


def _read(config: Config) -> Fields:
    routed = read_experts(config, "num_local_experts", "intermediate_size")
    return {"window": config.whole("sliding_window", 0), **routed, "d_ff": 0}


def _written(shape: Shape) -> Fields:
    window = {"sliding_window": shape.window} if shape.window else {}
    return {
        **window,
        "intermediate_size": shape.d_expert,
        "num_local_experts": shape.experts,
        "num_experts_per_tok": shape.top_k,
    }


MIXTRAL = Family(
    model_type="mixtral",
    architecture="MixtralForCausalLM",
    defaults={
        **core.DEFAULTS,
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1_000_000.0,
        "sliding_window": None,
        "num_experts_per_tok": 2,
        "num_local_experts": 8,
    },
    only=core.ONLY,
    experts="num_local_experts",
    read=_read,
    written=_written,
    limits=(
        *limits.SPARSE,
        limits.GROUPED,
        limits.WHOLE_HEADS,
        *limits.PLAIN_ROUTER,
        *limits.ALL_SPARSE,
        limits.only("normalize_gates", True, reason="the gates of the chosen experts sum to one"),
        limits.NO_NORMS,
        limits.ONE_WINDOW,
        limits.NO_BIAS,
    ),
    tensors=(
        *names.TRUNK,
        *names.PROJECTIONS,
        *names.experts("block_sparse_moe", "w1", "w3", "w2"),
        *names.experts("mlp", "w1", "w3", "w2"),  # as some releases of `transformers` name it
        *names.PREDICTION,
    ),
)
