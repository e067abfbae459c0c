"""GLM-4-MoE: DeepSeek-V3's router on grouped queries, with norms on each head or none and biases or none.

Positions rotate only the first channels of each head.
"""

from __future__ import annotations

from sparsedial.shape.families.family import Family
from sparsedial.shape.hugging_face import core, limits, names, rope
from sparsedial.shape.hugging_face.core import read_core
from sparsedial.shape.hugging_face.routing import read_like_v3, written_like_v3
from sparsedial.shape.hugging_face.values import Config, Fields
from sparsedial.shape.shape import Shape


def _read(config: Config) -> Fields:
    return {
        **read_like_v3(config),
        "qk_norm": "head" if config.get("use_qk_norm") else "none",
        "attention_bias": config.truth("attention_bias"),
        "rotated": rope.read_rotated(config, read_core(config)["head_dim"]),
    }


def _written(shape: Shape) -> Fields:
    return {**written_like_v3(shape), "use_qk_norm": shape.qk_norm == "head", rope.SHARE: rope.share(shape)}


ONLY = {name: allowed for name, allowed in core.ONLY_WHOLE.items() if name not in ("attention_bias", rope.SHARE)}

GLM4_MOE = Family(
    model_type="glm4_moe",
    architecture="Glm4MoeForCausalLM",
    defaults={
        **core.DEFAULTS,
        "vocab_size": 151_552,
        "hidden_size": 4096,
        "intermediate_size": 10_944,
        "num_hidden_layers": 46,
        "num_attention_heads": 96,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-5,
        rope.SHARE: 0.5,
        "moe_intermediate_size": 1408,
        "num_experts_per_tok": 8,
        "n_shared_experts": 1,
        "n_routed_experts": 128,
        "routed_scaling_factor": 1.0,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "norm_topk_prob": True,
        "use_qk_norm": False,
        "num_nextn_predict_layers": 1,
    },
    only=ONLY,
    experts="n_routed_experts",
    read=_read,
    written=_written,
    limits=(
        *limits.SPARSE,
        limits.GROUPED,
        *limits.SIGMOID_ROUTER,
        limits.NO_SHARED_GATE,
        limits.LEADING,
        limits.only("qk_norm", "head", "none", reason="it norms each head's queries and keys or none"),
        limits.NO_WINDOW,
    ),
    ties=False,
    tensors=(
        *names.TRUNK,
        *names.LEADING_ROTATED,
        *(*names.DENSE, *names.experts("mlp"), *names.ROUTING_BIAS, *names.SHARED),
        *names.PREDICTION,
    ),
)
