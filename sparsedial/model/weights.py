"""The weights of a built model under their canonical names.

Canonical matrices are [out, in]; ours multiply from the right, so the views are transposed. Fused matrices are viewed
in parts: query, key and value are side by side in `w_qkv_DQ`, gate and up in `w_in`, and experts are stacked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsedial.model.attention import Attention, GroupedAttention, LatentAttention
from sparsedial.model.stream import NamedTensor
from sparsedial.model.transformer import Block, DenseFeedForward, Prediction, SparseFeedForward, Transformer
from sparsedial.shape.tensors import Name

Parts = dict[str, Tensor]
Views = dict[Name, Tensor]


def stream_of(model: Transformer) -> list[NamedTensor]:
    """The tensors of a model, whose values share its memory."""
    return [
        NamedTensor(
            name=name, size=tuple(view.shape), dtype=view.dtype, origin="the model", values=lambda view=view: view
        )
        for name, view in views_of(model).items()
    ]


@torch.no_grad()
def views_of(model: Transformer) -> Views:
    """Every tensor of a model as a view of its memory, in the order of `tensor_sizes`."""
    unembedding = {} if model.unembedding_VD is None else {"unembedding": model.unembedding_VD}
    views = _named({"embedding": model.embedding_VD, "norm": model.norm_D, **unembedding}, None)
    for layer, block in enumerate(model.blocks):
        views |= views_of_block(block, layer)
    for layer, module in enumerate(model.predictions, start=model.shape.layers):
        assert isinstance(module, Prediction)
        joining = {
            "embedding_norm": module.embedding_norm_D,
            "stream_norm": module.stream_norm_D,
            "join": module.w_join_JD.t(),
            "prediction_norm": module.norm_D,
        }
        views |= _named(joining, layer) | views_of_block(module.block, layer)
    return {name: view.detach() for name, view in views.items()}


def _named(parts: Parts, layer: int | None, expert: int | None = None) -> Views:
    return {Name(part, layer, expert): tensor for part, tensor in parts.items()}


def views_of_block(block: torch.nn.Module, layer: int) -> Views:
    """Every tensor of a layer of this number as a view of its memory."""
    assert isinstance(block, Block)
    norms = {"attention_norm": block.attention_norm_D, "feed_forward_norm": block.feed_forward_norm_D}
    views = _named({**norms, **_attention(block.attention)}, layer)
    if isinstance(block.feed_forward, DenseFeedForward):
        return views | _named(_dense(block.feed_forward, "feed_forward."), layer)
    return views | _sparse(block.feed_forward, layer)


def _attention(attention: Attention) -> Parts:
    parts = _grouped(attention) if isinstance(attention, GroupedAttention) else _latent(attention)
    return {f"attention.{name}": tensor for name, tensor in parts.items()}


def _grouped(attention: GroupedAttention) -> Parts:
    shape = attention.shape
    names = ("query", "key", "value")
    widths = [heads * shape.head_dim for heads in (shape.heads, shape.kv_heads, shape.kv_heads)]
    columns = attention.w_qkv_DQ.split(widths, 1)
    parts = {name: part.t() for name, part in zip(names, columns, strict=True)}
    parts["output"] = attention.w_out_QD.t()
    if attention.b_qkv_Q is not None:
        biases = attention.b_qkv_Q.split(widths)
        parts |= {f"{name}_bias": part for name, part in zip(names, biases, strict=True)}
    if shape.qk_norm != "none":
        parts |= {"query_norm": attention.q_norm_C, "key_norm": attention.k_norm_C}
    return parts


def _latent(attention: LatentAttention) -> Parts:
    parts = {
        "latent": attention.w_latent_DR.t(),
        "latent_norm": attention.latent_norm_R,
        "latent_up": attention.w_up_RQ.t(),
        "output": attention.w_out_QD.t(),
    }
    if not attention.shape.q_lora_rank:
        return parts | {"query": attention.w_query_AQ.t()}
    return parts | {
        "query_down": attention.w_query_down_DA.t(),
        "query_down_norm": attention.query_norm_A,
        "query_up": attention.w_query_AQ.t(),
    }


def _dense(feed_forward: DenseFeedForward, prefix: str) -> Parts:
    return _swiglu(feed_forward.w_in_DH, feed_forward.w_out_FD, prefix)


def _swiglu(w_in_DH: Tensor, w_out_FD: Tensor, prefix: str) -> Parts:
    gate_DF, up_DF = w_in_DH.chunk(2, 1)
    return {f"{prefix}gate": gate_DF.t(), f"{prefix}up": up_DF.t(), f"{prefix}down": w_out_FD.t()}


def _sparse(feed_forward: SparseFeedForward, layer: int) -> Views:
    bias = {} if feed_forward.bias_E is None else {"routing_bias": feed_forward.bias_E}
    views = _named({"router": feed_forward.w_router_DE.t(), **bias}, layer)
    pairs = zip(feed_forward.w_in_EDH.unbind(0), feed_forward.w_out_EFD.unbind(0), strict=True)
    for expert, (w_in_DH, w_out_FD) in enumerate(pairs):
        views |= _named(_swiglu(w_in_DH, w_out_FD, "experts."), layer, expert)
    if feed_forward.shared is not None:
        views |= _named(_dense(feed_forward.shared, "shared."), layer)
    if feed_forward.w_shared_gate_D1 is not None:
        views |= _named({"shared_gate": feed_forward.w_shared_gate_D1.t()}, layer)
    return views
