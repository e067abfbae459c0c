"""Whole layers in one compiled call and one autograd node each: at a study's sizes the nodes take longer than their
arithmetic. Their readable twins are the modules of `model/transformer.py`, which call them where they can.

B sequences, S positions, T tokens (B*S), D d_model, H query heads, G key-value heads, C head_dim, Q = (H + 2G)*C,
E experts, K chosen, F width of an expert or dense layer, M of the shared experts together, V vocabulary; in
`causal_attention` V is the width of a value and U = H*V.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import increment_version

from sparsedial.kernels import native
from sparsedial.kernels.native import addresses


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_BSD: Tensor, rotary: tuple[Tensor, Tensor], heads: int, eps: float, *weights: Any
    ) -> Tensor:
        norm_D, w_qkv_DQ, q_norm_C, k_norm_C, w_out_QD = weights
        (sequences, positions, d_model), head_dim = x_BSD.shape, w_out_QD.shape[0] // heads
        kv_heads = (w_qkv_DQ.shape[1] // head_dim - heads) // 2
        sizes = d_model, heads, kv_heads, head_dim
        saved = x_BSD.new_empty(native.module.attention_saved(sequences * positions, *sizes))
        y_BSD, threads = torch.empty_like(x_BSD), torch.get_num_threads()
        given = (x_BSD, norm_D, w_qkv_DQ, q_norm_C, k_norm_C, *rotary, w_out_QD)
        native.module.attention_forward(*addresses(*given, y_BSD, saved), sequences, positions, *sizes, eps, threads)
        ctx.save_for_backward(*given, saved)
        ctx.sizes = (sequences, positions, *sizes, threads)
        return y_BSD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BSD: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        *given, saved = ctx.saved_tensors
        x_BSD, norm_D, w_qkv_DQ, q_norm_C, k_norm_C, _, _, w_out_QD = given
        results = [
            None if tensor is None else torch.empty_like(tensor)
            for tensor in (x_BSD, norm_D, w_qkv_DQ, q_norm_C, k_norm_C, w_out_QD)
        ]
        native.module.attention_backward(*addresses(dy_BSD.contiguous(), *given, saved, *results), *ctx.sizes)
        increment_version(saved)
        return results[0], None, None, None, *results[1:]


def attention_layer(
    x_BSD: Tensor,
    norm_D: Tensor,
    w_qkv_DQ: Tensor,
    q_norm_C: Tensor | None,
    k_norm_C: Tensor | None,
    w_out_QD: Tensor,
    rotary: tuple[Tensor, Tensor],
    heads: int,
    eps: float,
) -> Tensor:
    """x + attention(norm(x)), causal over whole sequences, queries and keys normed per head where they have weights.

    Shapes: x [B, S, D], w_qkv [D, Q] (queries, keys, values), w_out [H*C, D], rotary two of [S, C] to [B, S, D]
    """
    return _Attention.apply(x_BSD, rotary, heads, eps, norm_D, w_qkv_DQ, q_norm_C, k_norm_C, w_out_QD)  # type: ignore[return-value]


class _Causal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_BHSC: Tensor, k_BGSC: Tensor, v_BGSV: Tensor, scale: float) -> Tensor:
        (sequences, heads, positions, head_dim), (_, kv_heads, _, width) = q_BHSC.shape, v_BGSV.shape
        y_BSU, normaliser_BHS = (
            q_BHSC.new_empty(sequences, positions, heads * width),
            q_BHSC.new_empty(q_BHSC.shape[:3]),
        )
        ctx.sizes = sequences, positions, heads, kv_heads, head_dim, width, scale, torch.get_num_threads()
        native.module.causal_forward(*addresses(q_BHSC, k_BGSC, v_BGSV, y_BSU, normaliser_BHS), *ctx.sizes)
        ctx.save_for_backward(q_BHSC, k_BGSC, v_BGSV, y_BSU, normaliser_BHS)
        return y_BSU

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BSU: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        given = ctx.saved_tensors
        results = list(map(torch.empty_like, given[:3]))
        native.module.causal_backward(*addresses(dy_BSU.contiguous(), *given, *results), *ctx.sizes)
        return *results, None


def causal_attention(q_BHSC: Tensor, k_BGSC: Tensor, v_BGSV: Tensor, scale: float) -> Tensor:
    """softmax(q k^T scale) v over the positions up to each, heads side by side; a few queries' scores exist at a time.

    Shapes: q [B, H, S, C], k [B, G, S, C], v [B, G, S, V] to [B, S, H * V]
    """
    return _Causal.apply(q_BHSC.contiguous(), k_BGSC.contiguous(), v_BGSV.contiguous(), scale)  # type: ignore[return-value]


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BSD: Tensor, norm_D: Tensor, w_in_DH: Tensor, w_out_FD: Tensor, eps: float) -> Tensor:
        width, d_model = w_out_FD.shape
        sizes = x_BSD.numel() // d_model, d_model, width
        saved, y_BSD = x_BSD.new_empty(native.module.dense_saved(*sizes)), torch.empty_like(x_BSD)
        given, threads = (x_BSD, norm_D, w_in_DH, w_out_FD), torch.get_num_threads()
        native.module.dense_forward(*addresses(*given, y_BSD, saved), *sizes, eps, threads)
        ctx.save_for_backward(*given, saved)
        ctx.sizes = (*sizes, threads)
        return y_BSD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BSD: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        *given, saved = ctx.saved_tensors
        results = list(map(torch.empty_like, given))
        native.module.dense_backward(*addresses(dy_BSD.contiguous(), *given, saved, *results), *ctx.sizes)
        increment_version(saved)
        return *results, None


def dense_layer(x_BSD: Tensor, norm_D: Tensor, w_in_DH: Tensor, w_out_FD: Tensor, eps: float) -> Tensor:
    """x + swiglu(norm(x)). Shapes: x [B, S, D], w_in [D, 2F] (gate half first), w_out [F, D] to [B, S, D]"""
    return _Dense.apply(x_BSD, norm_D, w_in_DH, w_out_FD, eps)  # type: ignore[return-value]


class _Sparse(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_BSD: Tensor, bias_E: Tensor | None, load_E: Tensor | None, routing: tuple[Any, ...], *weights: Any
    ) -> tuple[Tensor, Tensor]:
        norm_D, w_router_DE, w_in_EDH, w_out_EFD, shared_in_DM, shared_out_MD = weights
        (sequences, positions, d_model), (experts, width, _) = x_BSD.shape, w_out_EFD.shape
        shared = 0 if shared_out_MD is None else len(shared_out_MD)
        top_k, *choice, eps = routing
        saved = x_BSD.new_empty(
            native.module.sparse_saved(sequences, sequences * positions, d_model, width, shared, experts, top_k)
        )
        y_BSD, loss, threads = torch.empty_like(x_BSD), x_BSD.new_empty(()), torch.get_num_threads()
        sizes = (sequences, positions, d_model, width, shared, experts, top_k, *choice)
        native.module.sparse_forward(
            *addresses(x_BSD, norm_D, w_router_DE, bias_E, w_in_EDH, w_out_EFD, shared_in_DM, shared_out_MD),
            *addresses(y_BSD, saved, loss, load_E), *sizes, eps, threads,
        )  # fmt: skip
        ctx.save_for_backward(x_BSD, *weights, saved)
        ctx.sizes = (*sizes, threads)
        return y_BSD, loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BSD: Tensor, dloss: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        *given, saved = ctx.saved_tensors
        results = [None if tensor is None else torch.empty_like(tensor) for tensor in given]
        native.module.sparse_backward(*addresses(dy_BSD.contiguous(), dloss, *given, saved, *results), *ctx.sizes)
        increment_version(saved)
        return results[0], None, None, None, *results[1:]


def sparse_layer(
    x_BSD: Tensor,
    norm_D: Tensor,
    w_router_DE: Tensor,
    w_in_EDH: Tensor,
    w_out_EFD: Tensor,
    shared_in_DM: Tensor | None,
    shared_out_MD: Tensor | None,
    *,
    bias_E: Tensor | None,
    load_E: Tensor | None,
    top_k: int,
    groups: int,
    kept_groups: int,
    sigmoid: bool,
    normalize: bool,
    scaling: float,
    balance_weight: float,
    z_loss_weight: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """x + routed and shared experts of norm(x); and the weighted routing losses.

    `load_E` gathers how many tokens each expert got.

    Shapes: x [B, S, D], w_router [D, E], w_in [E, D, 2F], w_out [E, F, D], shared [D, 2M] and [M, D] to [B, S, D], []
    """
    routing = (
        top_k,
        groups,
        kept_groups,
        sigmoid,
        normalize,
        float(scaling),
        float(balance_weight),
        float(z_loss_weight),
        eps,
    )
    weights = norm_D, w_router_DE, w_in_EDH, w_out_EFD, shared_in_DM, shared_out_MD
    return _Sparse.apply(x_BSD, bias_E, load_E, routing, *weights)  # type: ignore[return-value]


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_BSD: Tensor, norm_D: Tensor, table_VD: Tensor, target_BS: Tensor, eps: float, learning: bool
    ) -> Tensor:
        given = x_BSD, norm_D, table_VD
        results = [torch.empty_like(tensor) if learning else None for tensor in given]
        loss = x_BSD.new_empty(())
        status = native.module.head_forward(
            *addresses(*given, target_BS, loss, *results),
            target_BS.numel(), *reversed(table_VD.shape), eps, torch.get_num_threads(),
        )  # fmt: skip
        if status:
            raise IndexError(f"a target lies outside 0..{len(table_VD) - 1}")
        ctx.results = results  # the gradient is as cheap to have now as the loss alone
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        scale = float(dloss)
        return *(result if scale == 1.0 else result * scale for result in ctx.results), None, None, None


def head_loss(x_BSD: Tensor, norm_D: Tensor, table_VD: Tensor, target_BS: Tensor, eps: float) -> Tensor:
    """Mean cross-entropy of norm(x) @ table.T, nats per token; logits of a few hundred tokens exist at a time.

    Shapes: x [B, S, D], table [V, D], target [B, S] of int64 to []
    Raises: IndexError for a target outside the vocabulary.
    """
    return _Head.apply(x_BSD, norm_D, table_VD, target_BS.contiguous(), eps, torch.is_grad_enabled())  # type: ignore[return-value]
