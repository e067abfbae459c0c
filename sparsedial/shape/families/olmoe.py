"""OLMoE: all layers sparse, softmax gates, norms over the whole projections of queries and keys."""

from __future__ import annotations

from sparsedial.shape.families.family import Family
from sparsedial.shape.hugging_face import core, limits, names
from sparsedial.shape.hugging_face.limits import Limit
from sparsedial.shape.hugging_face.routing import read_experts
from sparsedial.shape.hugging_face.values import Config, Fields
from sparsedial.shape.shape import Shape


def _read(config: Config) -> Fields:
    return {
        **read_experts(config, "num_experts", "intermediate_size"),
        "d_ff": 0,
        "normalize_gates": config.truth("norm_topk_prob"),
        "qk_norm": "full",
    }


def _written(shape: Shape) -> Fields:
    return {
        "intermediate_size": shape.d_expert,
        "num_experts": shape.experts,
        "num_experts_per_tok": shape.top_k,
        "norm_topk_prob": shape.normalize_gates,
    }


OLMOE = Family(
    model_type="olmoe",
    architecture="OlmoeForCausalLM",
    defaults={
        **core.DEFAULTS,
        "vocab_size": 50_304,
        "hidden_size": 2048,
        "intermediate_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "num_experts_per_tok": 8,
        "num_experts": 64,
        "norm_topk_prob": False,
    },
    only=core.ONLY_WHOLE,
    experts="num_experts",
    read=_read,
    written=_written,
    limits=(
        *limits.SPARSE,
        limits.GROUPED,
        limits.WHOLE_HEADS,
        *limits.PLAIN_ROUTER,
        *limits.ALL_SPARSE,
        limits.only("qk_norm", "full", reason="it norms all heads' queries and keys together"),
        limits.NO_WINDOW,
        limits.OUTPUT_BIAS,
        Limit(
            field="head_dim",
            reason="its heads make up d_model",
            allows=lambda shape: shape.heads * shape.head_dim == shape.d_model,
        ),
    ),
    ties=False,
    tensors=(*names.TRUNK, *names.PROJECTIONS, *names.NORMS, *names.experts("mlp"), *names.PREDICTION),
)
