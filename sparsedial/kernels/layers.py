"""Whole layers as one compiled call and one autograd node each, because at a study's sizes the nodes take longer than
their arithmetic. Their readable twins are the modules of `model/transformer.py`, which use these where they can.

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

from sparsedial.kernels import narrow, native


def _half(weight: Tensor) -> bool:
    """Whether a kernel reads the layer's matrices in bfloat16."""
    return weight.dtype == torch.bfloat16


def _like(*tensors: Tensor | None) -> list[Tensor]:
    """An empty gradient for each tensor; None (a null pointer) where there is no tensor."""
    return [None if tensor is None else torch.empty_like(tensor) for tensor in tensors]  # type: ignore[misc]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_BSD: Tensor, rotary: tuple[Tensor, Tensor], heads: int, eps: float, *weights: Any
    ) -> Tensor:
        norm_D, w_qkv_DQ, q_norm_C, k_norm_C, w_out_QD = weights
        (cosine_SC, sine_SC), threads = rotary, torch.get_num_threads()
        (sequences, positions, d_model), head_dim = x_BSD.shape, w_out_QD.shape[0] // heads
        kv_heads = (w_qkv_DQ.shape[1] // head_dim - heads) // 2
        widths = {"d": d_model, "heads": heads, "kv_heads": kv_heads, "c": head_dim}
        saved = x_BSD.new_empty(native.module.attention_saved(tokens=sequences * positions, **widths))
        ctx.sizes = {"sequences": sequences, "s": positions, **widths, "threads": threads}
        y_BSD = torch.empty_like(x_BSD)
        native.module.attention_forward(
            x=x_BSD, norm=norm_D, w_qkv=w_qkv_DQ, q_norm=q_norm_C, k_norm=k_norm_C, cosine=cosine_SC, sine=sine_SC,
            w_out=w_out_QD, y=y_BSD, saved=saved, eps=eps, **ctx.sizes,
        )  # fmt: skip
        ctx.save_for_backward(x_BSD, norm_D, w_qkv_DQ, q_norm_C, k_norm_C, cosine_SC, sine_SC, w_out_QD, saved)
        return y_BSD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BSD: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x_BSD, norm_D, w_qkv_DQ, q_norm_C, k_norm_C, cosine_SC, sine_SC, w_out_QD, saved = ctx.saved_tensors
        dx, dnorm, dw_qkv, dq_norm, dk_norm, dw_out = _like(x_BSD, norm_D, w_qkv_DQ, q_norm_C, k_norm_C, w_out_QD)
        native.module.attention_backward(
            dy=dy_BSD.contiguous(), x=x_BSD, norm=norm_D, w_qkv=w_qkv_DQ, q_norm=q_norm_C, k_norm=k_norm_C,
            cosine=cosine_SC, sine=sine_SC, w_out=w_out_QD, saved=saved, dx=dx, dnorm=dnorm, dw_qkv=dw_qkv,
            dq_norm=dq_norm, dk_norm=dk_norm, dw_out=dw_out, **ctx.sizes,
        )  # fmt: skip
        increment_version(saved)
        return dx, None, None, None, dnorm, dw_qkv, dq_norm, dk_norm, dw_out


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
    """x + attention(norm(x)), causal over whole sequences; queries and keys are normed per head if norms are given.

    Shapes: x [B, S, D], w_qkv [D, Q] (queries, keys, values), w_out [H*C, D], rotary two of [S, C] to [B, S, D]
    """
    w_qkv_DQ, w_out_QD = w_qkv_DQ.float(), w_out_QD.float()
    return _Attention.apply(x_BSD, rotary, heads, eps, norm_D, w_qkv_DQ, q_norm_C, k_norm_C, w_out_QD)  # type: ignore[return-value]


class _Causal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_BHSC: Tensor, k_BGSC: Tensor, v_BGSV: Tensor, scale: float) -> Tensor:
        (sequences, heads, positions, head_dim), (_, kv_heads, _, width) = q_BHSC.shape, v_BGSV.shape
        y_BSU, normaliser_BHS = (
            q_BHSC.new_empty(sequences, positions, heads * width),
            q_BHSC.new_empty(sequences, heads, positions),
        )
        ctx.sizes = {
            "sequences": sequences, "s": positions, "heads": heads, "kv_heads": kv_heads, "c": head_dim, "width": width,
            "scale": scale, "threads": torch.get_num_threads(),
        }  # fmt: skip
        native.module.causal_forward(q=q_BHSC, k=k_BGSC, v=v_BGSV, y=y_BSU, normaliser=normaliser_BHS, **ctx.sizes)
        ctx.save_for_backward(q_BHSC, k_BGSC, v_BGSV, y_BSU, normaliser_BHS)
        return y_BSU

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BSU: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        q_BHSC, k_BGSC, v_BGSV, y_BSU, normaliser_BHS = ctx.saved_tensors
        dq, dk, dv = _like(q_BHSC, k_BGSC, v_BGSV)
        native.module.causal_backward(
            dy=dy_BSU.contiguous(), q=q_BHSC, k=k_BGSC, v=v_BGSV, y=y_BSU, normaliser=normaliser_BHS, dq=dq, dk=dk,
            dv=dv, **ctx.sizes,
        )  # fmt: skip
        return dq, dk, dv, None


def causal_attention(q_BHSC: Tensor, k_BGSC: Tensor, v_BGSV: Tensor, scale: float) -> Tensor:
    """softmax(q k^T scale) v, causal, heads side by side; only a few queries' scores are in memory at a time.

    Shapes: q [B, H, S, C], k [B, G, S, C], v [B, G, S, V] to [B, S, H * V]
    """
    return _Causal.apply(q_BHSC.contiguous(), k_BGSC.contiguous(), v_BGSV.contiguous(), scale)  # type: ignore[return-value]


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BSD: Tensor, norm_D: Tensor, w_in_DH: Tensor, w_out_FD: Tensor, eps: float) -> Tensor:
        width, d_model = w_out_FD.shape
        sizes, threads = {"tokens": x_BSD.numel() // d_model, "d": d_model, "f": width}, torch.get_num_threads()
        saved, y_BSD = x_BSD.new_empty(native.module.dense_saved(**sizes)), torch.empty_like(x_BSD)
        native.module.dense_forward(
            x=x_BSD, norm=norm_D, w_in=w_in_DH, w_out=w_out_FD, gate_weights=None, down_norms=None, least_gate=0.0,
            least_written=0.0, y=y_BSD, saved=saved, eps=eps, half=_half(w_in_DH), threads=threads, **sizes,
        )  # fmt: skip
        ctx.save_for_backward(x_BSD, norm_D, w_in_DH, w_out_FD, saved)
        ctx.sizes = {**sizes, "threads": threads}
        return y_BSD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BSD: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x_BSD, norm_D, w_in_DH, w_out_FD, saved = ctx.saved_tensors
        dx, dnorm, dw_in, dw_out = _like(x_BSD, norm_D, w_in_DH, w_out_FD)
        native.module.dense_backward(
            dy=dy_BSD.contiguous(), x=x_BSD, norm=norm_D, w_in=w_in_DH, w_out=w_out_FD, saved=saved, dx=dx,
            dnorm=dnorm, dw_in=dw_in, dw_out=dw_out, **ctx.sizes,
        )  # fmt: skip
        increment_version(saved)
        return dx, dnorm, dw_in, dw_out, None


def dense_layer(x_BSD: Tensor, norm_D: Tensor, w_in_DH: Tensor, w_out_FD: Tensor, eps: float) -> Tensor:
    """x + swiglu(norm(x)). Shapes: x [B, S, D], w_in [D, 2F] (gate half first), w_out [F, D] to [B, S, D]"""
    return _Dense.apply(x_BSD, norm_D, *narrow.as_taken(w_in_DH, w_out_FD), eps)  # type: ignore[return-value]


def gated_layer(
    x_BSD: Tensor,
    norm_D: Tensor,
    w_in_DH: Tensor,
    w_out_FD: Tensor,
    gate_F: Tensor,
    norm_F: Tensor,
    least_gate: float,
    least_written: float,
    eps: float,
) -> Tensor:
    """`dense_layer` by the neurons whose scores, by these weights, reach both thresholds; it has no gradient.

    Shapes: as `dense_layer`
    """
    sizes = {"tokens": x_BSD.shape[:-1].numel(), "d": x_BSD.shape[-1], "f": len(w_out_FD)}
    saved, y_BSD = x_BSD.new_empty(native.module.dense_saved(**sizes)), torch.empty_like(x_BSD)
    native.module.dense_forward(
        x=x_BSD, norm=norm_D, w_in=w_in_DH, w_out=w_out_FD, gate_weights=gate_F, down_norms=norm_F,
        least_gate=least_gate, least_written=least_written, y=y_BSD, saved=saved, eps=eps, half=_half(w_in_DH),
        threads=torch.get_num_threads(), **sizes,
    )  # fmt: skip
    return y_BSD


class _Sparse(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_BSD: Tensor,
        bias_E: Tensor | None,
        load_E: Tensor | None,
        top_k_T: Tensor | None,
        routing: dict[str, float],
        eps: float,
        learning: bool,
        *weights: Any,
    ) -> tuple[Tensor, Tensor]:
        norm_D, w_router_DE, w_in_EDH, w_out_EFD, shared_in_DM, shared_out_MD = weights
        (sequences, positions, d_model), (experts, width, _) = x_BSD.shape, w_out_EFD.shape
        shared, threads = 0 if shared_out_MD is None else len(shared_out_MD), torch.get_num_threads()
        widths = {"d": d_model, "f": width, "m": shared, "e": experts, "k": routing["k"]}
        tokens = sequences * positions
        saved = x_BSD.new_empty(native.module.sparse_saved(sequences=sequences, tokens=tokens, **widths))
        y_BSD, loss = torch.empty_like(x_BSD), x_BSD.new_empty(())
        ctx.sizes = {"sequences": sequences, "s": positions, **widths, **routing, "threads": threads}
        native.module.sparse_forward(
            x=x_BSD, norm=norm_D, w_router=w_router_DE, bias=bias_E, w_in=w_in_EDH, w_out=w_out_EFD,
            shared_in=shared_in_DM, shared_out=shared_out_MD, top_k=top_k_T, y=y_BSD, saved=saved, loss=loss,
            load=load_E, eps=eps, learning=learning, half=_half(w_in_EDH), **ctx.sizes,
        )  # fmt: skip
        ctx.save_for_backward(x_BSD, *weights, saved)
        return y_BSD, loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BSD: Tensor, dloss: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        *given, saved = ctx.saved_tensors
        x_BSD, norm_D, w_router_DE, w_in_EDH, w_out_EFD, shared_in_DM, shared_out_MD = given
        dx, dnorm, dw_router, dw_in, dw_out, dshared_in, dshared_out = _like(*given)
        native.module.sparse_backward(
            dy=dy_BSD.contiguous(), dloss=dloss, x=x_BSD, norm=norm_D, w_router=w_router_DE, w_in=w_in_EDH,
            w_out=w_out_EFD, shared_in=shared_in_DM, shared_out=shared_out_MD, saved=saved, dx=dx, dnorm=dnorm,
            dw_router=dw_router, dw_in=dw_in, dw_out=dw_out, dshared_in=dshared_in, dshared_out=dshared_out,
            **ctx.sizes,
        )  # fmt: skip
        increment_version(saved)
        return dx, None, None, None, None, None, None, dnorm, dw_router, dw_in, dw_out, dshared_in, dshared_out


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
    top_k_T: Tensor | None,
    top_k: int,
    groups: int,
    kept_groups: int,
    sigmoid: bool,
    normalize: bool,
    ones: bool,
    scaling: float,
    top_p: float,
    balance_weight: float,
    z_loss_weight: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """x + routed and shared experts of norm(x); and the weighted routing losses.

    `load_E` counts the tokens of each expert. With `top_k_T` each token visits that many experts, and with
    `top_p` below 1 the fewest of them whose weights reach that share of their sum. Where tokens visit most experts and
    no gradient is asked for, all experts are computed as one dense layer.

    Shapes: x [B, S, D], w_router [D, E], w_in [E, D, 2F], w_out [E, F, D], shared [D, 2M] and [M, D] to [B, S, D], []
    """
    routing = {
        "k": top_k, "groups": groups, "kept_groups": kept_groups, "sigmoid": sigmoid, "normalize": normalize,
        "ones": ones, "scaling": scaling, "balance": balance_weight, "z": z_loss_weight, "top_p": top_p,
    }  # fmt: skip
    weights = norm_D, w_router_DE, *narrow.as_taken(w_in_EDH, w_out_EFD, shared_in_DM, shared_out_MD)
    return _Sparse.apply(x_BSD, bias_E, load_E, top_k_T, routing, eps, torch.is_grad_enabled(), *weights)  # type: ignore[return-value]


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_BSD: Tensor,
        norm_D: Tensor,
        table_VD: Tensor,
        target_BS: Tensor,
        weight_BS: Tensor | None,
        eps: float,
        learning: bool,
    ) -> Tensor:
        dx, dnorm, dtable = _like(x_BSD, norm_D, table_VD) if learning else (None, None, None)
        loss = x_BSD.new_empty(())
        _head(
            x_BSD, norm_D, table_VD, target_BS, eps, weight=weight_BS, loss=loss, each=None, dx=dx, dnorm=dnorm,
            dtable=dtable,
        )  # fmt: skip
        ctx.results = dx, dnorm, dtable  # computed in the same pass as the loss
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        scale = float(dloss)
        return *(result if scale == 1.0 else result * scale for result in ctx.results), None, None, None, None


def _head(x_BSD: Tensor, norm_D: Tensor, table_VD: Tensor, target_BS: Tensor, eps: float, **results: Any) -> None:
    words, d_model = table_VD.shape
    status = native.module.head_forward(
        x=x_BSD, norm=norm_D, table=table_VD, target=target_BS.contiguous(), tokens=target_BS.numel(), d=d_model,
        v=words, eps=eps, threads=torch.get_num_threads(), **results,
    )  # fmt: skip
    if status:
        raise IndexError(f"a target lies outside 0..{words - 1}")


def head_loss(
    x_BSD: Tensor,
    norm_D: Tensor,
    table_VD: Tensor,
    target_BS: Tensor,
    eps: float,
    weight_BS: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy of norm(x) @ table.T, nats per token; only a few hundred tokens' logits exist at a time.

    With weights it is the weighted mean, and 0 where all of them are 0.

    Shapes: x [B, S, D], table [V, D], target [B, S] of int64, weight [B, S] of float32 to []
    Raises: IndexError for a target outside the vocabulary.
    """
    weight_BS = None if weight_BS is None else weight_BS.contiguous()
    return _Head.apply(x_BSD, norm_D, table_VD, target_BS, weight_BS, eps, torch.is_grad_enabled())  # type: ignore[return-value]


def head_losses(x_BSD: Tensor, norm_D: Tensor, table_VD: Tensor, target_BS: Tensor, eps: float) -> Tensor:
    """The cross-entropy of each position, nats, of which `head_loss` is the mean; it has no gradient.

    Shapes: as `head_loss`, to [B, S]
    Raises: as `head_loss`.
    """
    each_BS = x_BSD.new_empty(target_BS.shape)
    _head(
        x_BSD.detach(), norm_D, table_VD, target_BS, eps, weight=None, loss=x_BSD.new_empty(()), each=each_BS, dx=None,
        dnorm=None, dtable=None,
    )  # fmt: skip
    return each_BS
