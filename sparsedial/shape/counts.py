"""What follows from a shape by arithmetic: parameters, FLOPs, bytes."""

from __future__ import annotations

from collections.abc import Sequence

from sparsedial.shape.shape import Layer, Shape
from sparsedial.shape.shapes import counted_once

PASSES = 3  # of a training step, in forward passes: the forward one, and the backward one of twice its FLOPs
DTYPE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "float8": 1}


def sparsity_of(shape: Shape, neurons: float = 1.0) -> dict[str, float]:
    """Three definitions of sparsity: 1 - K/E, 1 - active/total parameters, (K + shared)/(E + shared).

    `neurons` as for `active_parameters`.

    Source: Abnar et al. 2025; parameter share; Ling 2025
    """
    return {
        "experts": shape.sparsity,
        "parameters": 1 - active_parameters(shape, neurons=neurons) / total_parameters(shape),
        "activation_ratio": shape.activation_ratio,
    }


def attention_parameters(shape: Shape) -> int:
    """Stored parameters of one attention layer, norms inside it included."""
    d_model, heads = shape.d_model, shape.heads
    if shape.latent_attention:
        query_dim = heads * (shape.nope_head_dim + shape.rope_head_dim)
        queries = (
            d_model * shape.q_lora_rank + shape.q_lora_rank + shape.q_lora_rank * query_dim
            if shape.q_lora_rank
            else d_model * query_dim
        )
        latent = d_model * (shape.kv_lora_rank + shape.rope_head_dim) + shape.kv_lora_rank
        keys_values = shape.kv_lora_rank * heads * (shape.nope_head_dim + shape.v_head_dim)
        return queries + latent + keys_values + heads * shape.v_head_dim * d_model
    projected = (heads + 2 * shape.kv_heads) * shape.head_dim
    norms = {
        "none": 0,
        "head": 2 * shape.head_dim,
        "full": (heads + shape.kv_heads) * shape.head_dim,
    }[shape.qk_norm]
    bias = projected if shape.attention_bias else 0
    return d_model * projected + heads * shape.head_dim * d_model + norms + bias


def _feed_forward(shape: Shape, layer: Layer, experts: int) -> int:
    """Parameters of one feed-forward part with `experts` of its routed experts; parts that it lacks have width 0."""
    expert, dense = 3 * shape.d_model * layer.d_expert, 3 * shape.d_model * layer.d_ff
    gate = shape.d_model * shape.shared_gate * (layer.experts > 0)
    return dense + (experts + shape.shared_experts) * expert + shape.d_model * layer.experts + gate


def _parameters(shape: Shape, which: str, with_mtp: bool) -> int:
    """Parameters; of the routed experts, all (`which` is "experts") or those that a token visits ("top_k")."""
    block = attention_parameters(shape) + 2 * shape.d_model
    blocks = sum(count * (block + _feed_forward(shape, layer, getattr(layer, which))) for layer, count in shape.kinds)
    tables = shape.vocab_size * shape.d_model * (1 if shape.tied_embeddings else 2)
    modules = 0
    if with_mtp:  # each: a projection of two streams into one, two norms before it, a block, a norm after it
        layer = shape.layer(shape.layers)
        joining = 2 * shape.d_model**2 + 3 * shape.d_model
        modules = shape.mtp_layers * (joining + block + _feed_forward(shape, layer, getattr(layer, which)))
    return blocks + tables + shape.d_model + modules


@counted_once
def total_parameters(shape: Shape, with_mtp: bool = False) -> int:
    """Every stored parameter; tied embeddings count once, buffers do not count."""
    return _parameters(shape, "experts", with_mtp)


@counted_once
def active_parameters(shape: Shape, with_mtp: bool = False, neurons: float = 1.0) -> int:
    """Everything that one token uses, router and norms included, both embedding tables when untied.

    Where only a share of the `neurons` of dense layers takes part, all their gates are used, and on average this share
    of their ups and downs; modules of multi-token prediction use all.
    """
    active = _parameters(shape, "top_k", with_mtp)
    if neurons == 1:
        return active
    return active - round((1 - neurons) * 2 * shape.d_model * sum(count * layer.d_ff for layer, count in shape.kinds))


def flops_by_part(shape: Shape, context: int, with_mtp: bool = False) -> dict[str, int]:
    """Forward FLOPs per token by part, 2 per multiply-add, attention over the full square of the context.

    Units:  FLOP per token
    """
    d_model = shape.d_model
    if shape.latent_attention:
        score_dim = shape.heads * (shape.nope_head_dim + shape.rope_head_dim + shape.v_head_dim)
        norms = shape.q_lora_rank + shape.kv_lora_rank
        projections = attention_parameters(shape) - norms
    else:
        score_dim = 2 * shape.heads * shape.head_dim
        projections = d_model * (2 * shape.heads + 2 * shape.kv_heads) * shape.head_dim
    unembedding = 2 * d_model * shape.vocab_size
    parts = {
        "attention_projections": 2 * shape.layers * projections,
        "attention_scores": 2 * shape.layers * context * score_dim,
        **_summed([(_feed_forward_flops(shape, layer), count) for layer, count in shape.kinds]),
        "unembedding": unembedding,
    }
    module = 0
    if with_mtp and shape.mtp_layers:
        joining = 2 * 2 * d_model * d_model
        feed_forward = sum(_feed_forward_flops(shape, shape.layer(shape.layers)).values())
        module = joining + 2 * projections + 2 * context * score_dim + feed_forward + unembedding
    return {**parts, "mtp": shape.mtp_layers * module}


def _feed_forward_flops(shape: Shape, layer: Layer) -> dict[str, int]:
    """Forward FLOPs per token of one feed-forward part."""
    expert = expert_flops(shape, layer)
    return {
        "router": 2 * shape.d_model * layer.experts,
        "routed_experts": layer.top_k * expert,
        "shared_experts": shape.shared_experts * expert + 2 * shape.d_model * shape.shared_gate * (layer.experts > 0),
        "dense_feed_forward": 2 * 3 * shape.d_model * layer.d_ff,
    }


def expert_flops(shape: Shape, layer: Layer) -> int:
    """FLOPs of a forward pass per token that visits one expert of a layer."""
    return 2 * 3 * shape.d_model * layer.d_expert


def _summed(parts: Sequence[tuple[dict[str, int], int]]) -> dict[str, int]:
    """The sum of tables with the same names, each times its count."""
    return {name: sum(count * table[name] for table, count in parts) for name in parts[0][0]}


@counted_once
def forward_flops_per_token(shape: Shape, context: int, with_mtp: bool = False) -> int:
    """FLOPs of a forward pass per token, without norms, softmax and look-ups.

    Units:   FLOP per token
    Source:  Abnar et al. 2025, appendix C, with the shape's own widths
    """
    return sum(flops_by_part(shape, context, with_mtp).values())


@counted_once
def training_flops_per_token(shape: Shape, context: int, with_mtp: bool = False) -> int:
    """FLOPs of a training step per token: the forward pass, and twice that for the backward pass.

    Units:   FLOP per token
    """
    return PASSES * forward_flops_per_token(shape, context, with_mtp)


def training_flops_per_expert(shape: Shape, layer: Layer) -> int:
    """FLOPs of a training step per token that visits one expert of a layer."""
    return PASSES * expert_flops(shape, layer)


def cached_values_per_token(shape: Shape, with_mtp: bool = False) -> int:
    """Numbers that a decoder keeps per token: keys and values, or the latent and its rotary key."""
    layers = shape.layers + (shape.mtp_layers if with_mtp else 0)
    if shape.latent_attention:
        return layers * (shape.kv_lora_rank + shape.rope_head_dim)
    return 2 * layers * shape.kv_heads * shape.head_dim
