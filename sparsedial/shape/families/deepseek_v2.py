"""DeepSeek-V2: latent attention, softmax gates that are not normalised, shared experts, groups by their best expert."""

from __future__ import annotations

from sparsedial.shape.families.family import Family
from sparsedial.shape.hugging_face import core, latent, limits, names
from sparsedial.shape.hugging_face.routing import read_like_v3, written_like_v3
from sparsedial.shape.hugging_face.values import Config, Fields
from sparsedial.shape.shape import Shape

GROUPED = "group_limited_greedy"


def _read(config: Config) -> Fields:
    fields = {
        **read_like_v3(config),
        **latent.read_latent(config),
        "gate": "softmax",
        "routing_bias": False,
        "normalize_gates": False,
    }
    return fields if config.get("topk_method") == GROUPED else {**fields, "expert_groups": 1, "kept_groups": 1}


def _written(shape: Shape) -> Fields:
    return {
        **written_like_v3(shape),
        **latent.written_latent(shape),
        "scoring_func": shape.gate,
        "topk_method": GROUPED if shape.expert_groups > 1 else "greedy",
    }


DEEPSEEK_V2 = Family(
    model_type="deepseek_v2",
    architecture="DeepseekV2ForCausalLM",
    defaults={
        **core.DEFAULTS,
        **latent.DEFAULTS,
        "vocab_size": 102_400,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "first_k_dense_replace": 0,
        "n_group": None,
        "topk_group": None,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "routed_scaling_factor": 1.0,
        "topk_method": "greedy",
        "norm_topk_prob": False,
        "num_experts_per_tok": None,
        "moe_intermediate_size": 1407,
    },
    only={
        **core.ONLY_WHOLE,
        "moe_layer_freq": (None, 1),
        "scoring_func": (None, "softmax"),
        "norm_topk_prob": (None, False),
        "topk_method": (None, "greedy", GROUPED),
    },
    experts="n_routed_experts",
    read=_read,
    written=_written,
    limits=(
        *limits.SPARSE,
        limits.LATENT,
        limits.only("gate", "softmax", reason="its gates are a softmax"),
        limits.only("routing_bias", False, reason="no bias takes part in its choice"),
        limits.only("normalize_gates", False, reason="the gates of the chosen experts stay as they are"),
        limits.SHARED,
        limits.NO_SHARED_GATE,
        limits.LEADING,
        limits.DIVIDED,
    ),
    ties=False,
    tensors=(
        *(*names.TRUNK, *names.latent_attention()),
        *(*names.DENSE, *names.experts("mlp"), *names.SHARED),
        *names.PREDICTION,
    ),
)
