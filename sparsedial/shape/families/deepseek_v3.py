"""DeepSeek-V3, and Kimi-K2 of the same class: latent attention, sigmoid gates with a balancing bias, shared experts."""

from __future__ import annotations

from sparsedial.shape.families.family import Family
from sparsedial.shape.hugging_face import core, latent, limits, names
from sparsedial.shape.hugging_face.routing import read_like_v3, written_like_v3
from sparsedial.shape.hugging_face.values import Fields
from sparsedial.shape.shape import Shape


def _written(shape: Shape) -> Fields:
    return {
        **written_like_v3(shape),
        **latent.written_latent(shape),
        "scoring_func": shape.gate,
        "topk_method": "noaux_tc",
    }


DEEPSEEK_V3 = Family(
    model_type="deepseek_v3",
    aliases=("kimi_k2",),
    architecture="DeepseekV3ForCausalLM",
    defaults={
        **core.DEFAULTS,
        **latent.DEFAULTS,
        "vocab_size": 129_280,
        "hidden_size": 7168,
        "intermediate_size": 18_432,
        "num_hidden_layers": 61,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "max_position_embeddings": 4096,
        "moe_intermediate_size": 2048,
        "n_shared_experts": 1,
        "n_routed_experts": 256,
        "num_experts_per_tok": 8,
        "routed_scaling_factor": 2.5,
        "n_group": 8,
        "topk_group": 4,
        "first_k_dense_replace": 3,
        "norm_topk_prob": True,
        "rope_interleave": True,
        "num_nextn_predict_layers": 1,
    },
    only={
        **core.ONLY_WHOLE,
        "moe_layer_freq": (None, 1),
        "scoring_func": (None, "sigmoid"),
        "topk_method": (None, "noaux_tc"),
    },
    experts="n_routed_experts",
    read=lambda config: {**read_like_v3(config), **latent.read_latent(config)},
    written=_written,
    limits=(
        *(*limits.SPARSE, limits.LATENT, *limits.SIGMOID_ROUTER),
        *(limits.SHARED, limits.NO_SHARED_GATE, limits.LEADING),
    ),
    ties=False,
    tensors=(
        *(*names.TRUNK, *names.latent_attention("rope_interleave")),
        *(*names.DENSE, *names.experts("mlp"), *names.ROUTING_BIAS, *names.SHARED),
        *names.PREDICTION,
    ),
)
