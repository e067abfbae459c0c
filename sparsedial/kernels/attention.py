"""Causal attention over a whole sequence.

B sequences, S positions, H query heads, G key and value heads, N = H + G heads side by side, C head_dim.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from sparsedial.kernels import native


def reference_attention(qk_BNSC: Tensor, v_BGSC: Tensor) -> Tensor:
    """The readable twin: PyTorch's."""
    values = v_BGSC.shape[1]
    q_BHSC, k_BGSC = qk_BNSC.split([qk_BNSC.shape[1] - values, values], 1)
    gqa = q_BHSC.shape[1] != values
    y_BHSC = functional.scaled_dot_product_attention(q_BHSC, k_BGSC, v_BGSC, is_causal=True, enable_gqa=gqa)
    return y_BHSC.transpose(1, 2).flatten(2)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qk_BNSC: Tensor, v_BGSC: Tensor) -> Tensor:
        qk_BNSC, v_BGSC = qk_BNSC.contiguous(), v_BGSC.contiguous()
        sequences, values, positions, channels = v_BGSC.shape
        queries = qk_BNSC.shape[1] - values
        y_BSQ = qk_BNSC.new_empty(sequences, positions, queries * channels)
        normaliser_BHS = qk_BNSC.new_empty(sequences, queries, positions)
        sizes = sequences, queries, values, positions, channels, channels**-0.5, torch.get_num_threads()
        native.module.attention_forward(
            qk_BNSC.data_ptr(), v_BGSC.data_ptr(), y_BSQ.data_ptr(), normaliser_BHS.data_ptr(), *sizes
        )
        ctx.save_for_backward(y_BSQ, qk_BNSC, v_BGSC, normaliser_BHS)
        ctx.sizes = sizes
        return y_BSQ

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BSQ: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        y_BSQ, qk_BNSC, v_BGSC, normaliser_BHS = ctx.saved_tensors
        dy_BSQ, dqk_BNSC, dv_BGSC = dy_BSQ.contiguous(), torch.empty_like(qk_BNSC), torch.empty_like(v_BGSC)
        native.module.attention_backward(
            dy_BSQ.data_ptr(), y_BSQ.data_ptr(), qk_BNSC.data_ptr(), v_BGSC.data_ptr(), normaliser_BHS.data_ptr(),
            dqk_BNSC.data_ptr(), dv_BGSC.data_ptr(), *ctx.sizes,
        )  # fmt: skip
        return dqk_BNSC, dv_BGSC


def attention(qk_BNSC: Tensor, v_BGSC: Tensor) -> Tensor:
    """Each query with the keys up to its own position; equals `reference_attention`.

    Shapes: qk [B, H + G, S, C] (queries first), v [B, G, S, C] to [B, S, H * C]
    """
    if native.usable(qk_BNSC, v_BGSC):
        return _Attention.apply(qk_BNSC, v_BGSC)  # type: ignore[return-value]
    return reference_attention(qk_BNSC, v_BGSC)
