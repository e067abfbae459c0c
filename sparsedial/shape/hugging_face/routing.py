"""Routed experts in a `config.json`: fields that several families share, and which layers are sparse."""

from __future__ import annotations

from collections.abc import Callable

from sparsedial.shape.hugging_face.values import Config, Fields
from sparsedial.shape.shape import Shape

EXPERT_COUNTS = (
    "n_routed_experts",
    "num_experts",
    "num_local_experts",
)  # depends on the release of `transformers` that wrote it


def read_experts(config: Config, count: str, width: str) -> Fields:
    """Number of experts, choices of a token and width of an expert; `count` and `width` are names of fields."""
    return {
        "experts": config.whole(count),
        "top_k": config.whole("num_experts_per_tok"),
        "d_expert": config.whole(width),
    }


def read_sparse_layers(config: Config, sparse: Callable[[int], bool]) -> Fields:
    """Which layers are dense; `sparse` says whether a layer is sparse."""
    kinds = [sparse(layer) for layer in range(config.whole("num_hidden_layers"))]
    leading = kinds.index(True) if any(kinds) else len(kinds)
    others = tuple(layer for layer, kind in enumerate(kinds) if layer > leading and not kind)
    return {"dense_layers": leading, "dense_places": others}


def read_like_qwen(config: Config) -> Fields:
    """Qwen's experts: softmax gates; layers are sparse by steps, but for a list of dense ones.

    Raises: UserError for steps of no layer.
    """
    only, step = config.listed("mlp_only_layers"), config.whole("decoder_sparse_step")
    experts = config.whole("num_experts")
    if step < 1:
        raise config.error(f"decoder_sparse_step={step} is below 1")
    return {
        **read_experts(config, "num_experts", "moe_intermediate_size"),
        "normalize_gates": config.truth("norm_topk_prob"),
        **read_sparse_layers(config, lambda layer: layer not in only and experts > 0 and (layer + 1) % step == 0),
    }


def written_like_qwen(shape: Shape) -> Fields:
    """The same, for a `config.json`."""
    return {
        "num_experts": shape.experts,
        "num_experts_per_tok": shape.top_k,
        "norm_topk_prob": shape.normalize_gates,
        "moe_intermediate_size": shape.d_expert,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [layer for layer in range(shape.layers) if not shape.is_sparse(layer)],
    }


def read_like_v3(config: Config) -> Fields:
    """DeepSeek-V3's router: sigmoid gates, a bias that balances them, groups; shared experts; dense layers first."""
    return {
        **read_experts(config, "n_routed_experts", "moe_intermediate_size"),
        # A model that was cut to few layers may have fewer than its first dense ones.
        "dense_layers": min(config.whole("first_k_dense_replace", 0), config.whole("num_hidden_layers")),
        "shared_experts": config.whole("n_shared_experts", 0),
        "gate": "sigmoid",
        "normalize_gates": config.truth("norm_topk_prob"),
        "routed_scaling": config.positive("routed_scaling_factor"),
        "routing_bias": True,
        "expert_groups": config.whole("n_group", 1),
        "kept_groups": config.whole("topk_group", 1),
    }


def written_like_v3(shape: Shape) -> Fields:
    """The same, for a `config.json`."""
    return {
        "n_routed_experts": shape.experts,
        "num_experts_per_tok": shape.top_k,
        "norm_topk_prob": shape.normalize_gates,
        "moe_intermediate_size": shape.d_expert,
        "n_shared_experts": shape.shared_experts,
        "first_k_dense_replace": shape.dense_layers,
        "routed_scaling_factor": shape.routed_scaling,
        "n_group": shape.expert_groups,
        "topk_group": shape.kept_groups,
    }
