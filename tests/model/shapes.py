"""Small shapes of every family, and models whose norms and biases are not at their start."""

from __future__ import annotations

from dataclasses import replace

import torch

from sparsedial.model.transformer import Transformer, initialise
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shape import Layer, RopeScaling, Shape, with_layers

SPARSE = Ladder(vocab_size=64, context=32).shape(16, 8)
DENSE = Ladder(vocab_size=64, context=32).shape(16, 0)
GROUPED = replace(DENSE, heads=4, kv_heads=2, head_dim=4)
SMALL = {"layers": 2, "d_model": 16, "heads": 4, "kv_heads": 2, "head_dim": 4, "vocab_size": 64, "context": 32}
EXPERTS = {"d_ff": 0, "experts": 8, "top_k": 2, "d_expert": 8}
GATED = {"shared_experts": 2, "shared_gate": True, "attention_bias": True}
LATENT = {
    **SMALL, "kv_heads": 4, "head_dim": 10, "kv_lora_rank": 12, "nope_head_dim": 6, "rope_head_dim": 4, "v_head_dim": 5,
    "layers": 3, "dense_layers": 1, **EXPERTS, "d_ff": 24, "shared_experts": 2, "tied_embeddings": False,
}  # fmt: skip
V3 = {"gate": "sigmoid", "routing_bias": True, "routed_scaling": 2.5}
YARN = RopeScaling(kind="yarn", factor=4.0, original_context=8, mscale=1.0, mscale_all_dim=0.7, beta_fast=2.0)
FAMILIES = {
    "llama": Shape(**SMALL, d_ff=40),
    "llama, stretched as Llama 3.1": Shape(
        **SMALL, d_ff=40, rope_scaling=RopeScaling(kind="llama3", factor=8.0, original_context=16)
    ),
    "llama, stretched evenly": Shape(
        **SMALL, d_ff=40, rope_scaling=RopeScaling(kind="linear", factor=2.0, original_context=16)
    ),
    "mistral": Shape(**SMALL, d_ff=40, window=6),
    "mistral, heads that do not divide its width": Shape(**{**SMALL, "d_model": 18}, d_ff=40),
    "qwen2": Shape(**SMALL, d_ff=40, attention_bias=True, tied_embeddings=True),
    "qwen2, windows from the second layer on": Shape(
        **{**SMALL, "layers": 3}, d_ff=40, attention_bias=True, window=5, full_layers=1
    ),
    "qwen3": Shape(**SMALL, d_ff=40, qk_norm="head", tied_embeddings=True),
    "qwen3, windows from the second layer on": Shape(
        **{**SMALL, "layers": 3}, d_ff=40, qk_norm="head", window=5, full_layers=1
    ),
    "qwen3, YaRN": Shape(
        **SMALL, d_ff=40, qk_norm="head", rope_scaling=RopeScaling(kind="yarn", factor=4.0, original_context=8)
    ),
    "qwen3, YaRN between whole channels": Shape(
        **{**SMALL, "head_dim": 8}, d_ff=40, qk_norm="head",
        rope_scaling=RopeScaling(
            kind="yarn", factor=4.0, original_context=64, beta_fast=8.0, truncate=False, attention_factor=1.7
        ),
    ),
    "mixtral": Shape(**SMALL, **EXPERTS),
    "mixtral, with a window": Shape(**SMALL, **EXPERTS, window=6),
    "olmoe": Shape(**SMALL, **EXPERTS, qk_norm="full", normalize_gates=False),
    "qwen2_moe": Shape(**SMALL, **EXPERTS, **GATED, normalize_gates=False),
    "qwen2_moe, some layers dense, no biases": Shape(
        **{**SMALL, "layers": 4, **EXPERTS, **GATED, "d_ff": 24, "attention_bias": False},
        dense_layers=1, dense_places=(2,),
    ),
    "qwen2_moe, windows from the second layer on": Shape(**SMALL, **EXPERTS, **GATED, window=5, full_layers=1),
    "qwen3_moe": Shape(**SMALL, **EXPERTS, qk_norm="head"),
    "qwen3_moe, with a window": Shape(**SMALL, **EXPERTS, qk_norm="head", window=6),
    "qwen3_moe, some layers dense": Shape(
        **{**SMALL, "layers": 4, **EXPERTS, "d_ff": 24}, qk_norm="head", dense_layers=1, dense_places=(2,)
    ),
    "glm4_moe": SPARSE,
    "glm4_moe, with biases": replace(SPARSE, attention_bias=True),
    "glm4_moe, half of each head rotated": replace(SPARSE, rotated=4, attention_bias=True, kv_heads=1),
    "glm4_moe, a quarter rotated, no norms, YaRN": replace(
        SPARSE, rotated=2, qk_norm="none", rope_scaling=RopeScaling(kind="yarn", factor=4.0, original_context=8)
    ),
    "glm4_moe, first layer dense": replace(SPARSE, dense_layers=1, d_ff=24, layers=3),
    "deepseek_v2, queries as they are": Shape(**LATENT, normalize_gates=False),
    "deepseek_v2, groups and scaling": Shape(
        **LATENT, q_lora_rank=9, normalize_gates=False, expert_groups=4, kept_groups=2, routed_scaling=16.0
    ),
    "deepseek_v2, stretched evenly": Shape(
        **LATENT, normalize_gates=False,
        rope_scaling=RopeScaling(kind="linear", factor=4.0, original_context=8, mscale_all_dim=0.7),
    ),
    "deepseek_v3": Shape(**LATENT, **V3, q_lora_rank=9),
    "deepseek_v3, groups and YaRN": Shape(
        **LATENT, **V3, q_lora_rank=9, expert_groups=4, kept_groups=2, rope_scaling=YARN
    ),
}  # fmt: skip


UNEQUAL = with_layers(
    SPARSE,
    [
        Layer(d_ff=20),
        Layer(experts=8, top_k=2, d_expert=16),
        Layer(experts=6, top_k=3, d_expert=8),
        Layer(experts=3, top_k=1, d_expert=16),
    ],
)


def shaken(shape: Shape) -> Transformer:
    """A model whose norms and biases are not at their start, so that leaving one out shows."""
    model = initialise(shape, 1)
    make = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=make))
        for layer in model.sparse_feed_forwards:
            if layer.bias_E is not None:
                layer.bias_E.copy_(0.1 * torch.randn(layer.bias_E.shape, generator=make))
    return model.eval()
