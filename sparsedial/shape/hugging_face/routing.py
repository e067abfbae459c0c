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
    """Which layers are dense; `sparse` says whether a layer is sparse.

    Raises: UserError where none is.
    """
    kinds = [sparse(layer) for layer in range(config.whole("num_hidden_layers"))]
    if not any(kinds):
        raise config.error("none of its layers is sparse", hint="read it as a model of the dense family")
    leading = kinds.index(True)
    others = tuple(layer for layer, kind in enumerate(kinds) if layer > leading and not kind)
    return {"dense_layers": leading, "dense_places": others}


def read_like_v3(config: Config) -> Fields:
    """DeepSeek-V3's router: sigmoid gates, a bias that balances them, groups; shared experts; dense layers first."""
    return {
        **read_experts(config, "n_routed_experts", "moe_intermediate_size"),
        "dense_layers": config.whole("first_k_dense_replace", 0),
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
