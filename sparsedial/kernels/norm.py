"""Norms and rotary positions in one autograd node each: at tiny sizes autograd's own nodes cost more than arithmetic.

B sequences, S positions, D d_model, N query and key heads side by side, C head_dim; a last axis of any name.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from sparsedial.kernels import native

MOST_NATIVE_CHANNELS = 1024  # of a head, which the compiled kernel holds on its stack


def reference_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The readable twin: x / rms(x) * weight over the last axis.

    Source: Zhang and Sennrich 2019 (arXiv 1910.07467)
    """
    return functional.rms_norm(x, weight.shape, weight, eps)


def reciprocal_rms(x: Tensor, eps: float) -> Tensor:
    """1/sqrt(mean(x^2) + eps) over the last axis, which is kept."""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().mul_(1 / x.shape[-1]).add_(eps).rsqrt_()


def _norm_backward(dhat: Tensor, hat: Tensor, reciprocal: Tensor) -> Tensor:
    """From the gradient of the normed values to that of the values; overwrites `dhat`."""
    inner = (dhat * hat).mean(-1, keepdim=True)
    return dhat.addcmul_(hat, inner, value=-1).mul_(reciprocal)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        reciprocal = reciprocal_rms(x, eps)
        ctx.save_for_backward(x, weight_D, reciprocal)
        return (x * reciprocal).mul_(weight_D)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight_D, reciprocal = ctx.saved_tensors
        hat = x * reciprocal
        dweight_D = (dy * hat).flatten(0, -2).sum(0)
        return _norm_backward(dy * weight_D, hat, reciprocal), dweight_D, None


class _NativeRmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        y, rows = torch.empty_like(x), x.numel() // x.shape[-1]
        reciprocal = x.new_empty(rows)
        native.module.norm_forward(
            x.data_ptr(), weight_D.data_ptr(), y.data_ptr(), reciprocal.data_ptr(),
            rows, x.shape[-1], eps, torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(x, weight_D, reciprocal)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight_D, reciprocal = ctx.saved_tensors
        dy = dy.contiguous()
        dx, dweight_D = torch.empty_like(x), torch.empty_like(weight_D)
        native.module.norm_backward(
            dy.data_ptr(), x.data_ptr(), weight_D.data_ptr(), reciprocal.data_ptr(), dx.data_ptr(),
            dweight_D.data_ptr(), len(reciprocal), x.shape[-1], torch.get_num_threads(),
        )  # fmt: skip
        return dx, dweight_D, None


def rms_norm(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """Equals `reference_rms_norm`. Shapes: x [..., D], weight [D] to [..., D]"""
    if x.dtype != weight_D.dtype or x.is_cuda:
        return reference_rms_norm(x, weight_D.to(x.dtype), eps)  # a GPU has a fused one, and casts under autocast
    if native.usable(x, weight_D) and weight_D.is_contiguous():
        return _NativeRmsNorm.apply(x, weight_D, eps)  # type: ignore[return-value]
    return _RmsNorm.apply(x, weight_D, eps)  # type: ignore[return-value]


def rotate(x_BSNC: Tensor, cosine_S1C: Tensor, sine_S1C: Tensor) -> Tensor:
    """Turn pairs of channels (c, c + C/2) by their position's angle; the sine's first half is negated."""
    return torch.addcmul(x_BSNC * cosine_S1C, x_BSNC.roll(x_BSNC.shape[-1] // 2, -1), sine_S1C)


def reference_norm_rotate(
    x_BSNC: Tensor, weight_NC: Tensor, cosine_S1C: Tensor, sine_S1C: Tensor, eps: float
) -> Tensor:
    """The readable twin: every head normed and weighed, then rotated."""
    normed = functional.rms_norm(x_BSNC, x_BSNC.shape[-1:], None, eps) * weight_NC
    return rotate(normed, cosine_S1C, sine_S1C)


class _NormRotate(torch.autograd.Function):
    """Weights are folded into the cosines and sines, which are smaller than the batch."""

    @staticmethod
    def forward(
        ctx: Any, x_BSNC: Tensor, weight_NC: Tensor, cosine_S1C: Tensor, sine_S1C: Tensor, eps: float
    ) -> Tensor:
        half = x_BSNC.shape[-1] // 2
        reciprocal = reciprocal_rms(x_BSNC, eps)
        hat = x_BSNC * reciprocal
        straight_SNC = cosine_S1C * weight_NC
        crossed_SNC = sine_S1C * weight_NC.roll(half, -1)
        ctx.save_for_backward(hat, reciprocal, straight_SNC, crossed_SNC, cosine_S1C, sine_S1C)
        return torch.addcmul(hat * straight_SNC, hat.roll(half, -1), crossed_SNC)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BSNC: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        hat, reciprocal, straight_SNC, crossed_SNC, cosine_S1C, sine_S1C = ctx.saved_tensors
        half = hat.shape[-1] // 2
        dstraight_SNC = (dy_BSNC * hat).sum(0)
        dcrossed_SNC = (dy_BSNC * hat.roll(half, -1)).sum(0)
        dweight_NC = (dstraight_SNC * cosine_S1C).sum(0) + (dcrossed_SNC * sine_S1C).sum(0).roll(half, -1)
        dhat = (dy_BSNC * straight_SNC).add_((dy_BSNC * crossed_SNC).roll(half, -1))
        return _norm_backward(dhat, hat, reciprocal), dweight_NC, None, None, None


def norm_rotate(x_BSNC: Tensor, weight_NC: Tensor, cosine_S1C: Tensor, sine_S1C: Tensor, eps: float) -> Tensor:
    """Query-key norm and rotary positions together; equals `reference_norm_rotate`.

    Shapes: x [B, S, N, C], weight [N, C], cosine and sine [S, 1, C] to [B, S, N, C]
    """
    if x_BSNC.dtype != weight_NC.dtype:
        return reference_norm_rotate(
            x_BSNC, weight_NC.to(x_BSNC.dtype), cosine_S1C.to(x_BSNC.dtype), sine_S1C.to(x_BSNC.dtype), eps
        )
    return _NormRotate.apply(x_BSNC, weight_NC, cosine_S1C, sine_S1C, eps)  # type: ignore[return-value]


class _Heads(torch.autograd.Function):
    """Queries, keys and values by head from their joint projection: normed, rotated and laid out in one pass."""

    @staticmethod
    def forward(
        ctx: Any, qkv_BSQ: Tensor, weight_NC: Tensor, cosine_S1C: Tensor, sine_S1C: Tensor, values: int, eps: float
    ) -> tuple[Tensor, Tensor]:
        qkv_BSQ = qkv_BSQ.contiguous()
        (sequences, positions, _), (turned, channels) = qkv_BSQ.shape, weight_NC.shape
        qk_BNSC = qkv_BSQ.new_empty(sequences, turned, positions, channels)
        v_BGSC = qkv_BSQ.new_empty(sequences, values, positions, channels)
        reciprocal = qkv_BSQ.new_empty(sequences * positions * turned)
        native.module.heads_forward(
            qkv_BSQ.data_ptr(), weight_NC.data_ptr(), cosine_S1C.data_ptr(), sine_S1C.data_ptr(), qk_BNSC.data_ptr(),
            v_BGSC.data_ptr(), reciprocal.data_ptr(), sequences, positions, turned, values, channels,
            eps, torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(qkv_BSQ, weight_NC, cosine_S1C, sine_S1C, reciprocal)
        ctx.values = values
        return qk_BNSC, v_BGSC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dqk_BNSC: Tensor, dv_BGSC: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        qkv_BSQ, weight_NC, cosine_S1C, sine_S1C, reciprocal = ctx.saved_tensors
        (sequences, positions, _), (turned, channels) = qkv_BSQ.shape, weight_NC.shape
        dqk_BNSC, dv_BGSC = dqk_BNSC.contiguous(), dv_BGSC.contiguous()
        dqkv_BSQ, dweight_NC = torch.empty_like(qkv_BSQ), torch.empty_like(weight_NC)
        native.module.heads_backward(
            dqk_BNSC.data_ptr(), dv_BGSC.data_ptr(), qkv_BSQ.data_ptr(), weight_NC.data_ptr(), cosine_S1C.data_ptr(),
            sine_S1C.data_ptr(), reciprocal.data_ptr(), dqkv_BSQ.data_ptr(), dweight_NC.data_ptr(), sequences,
            positions, turned, ctx.values, channels, torch.get_num_threads(),
        )  # fmt: skip
        return dqkv_BSQ, dweight_NC, None, None, None, None


def heads(
    qkv_BSQ: Tensor, weight_NC: Tensor, cosine_S1C: Tensor, sine_S1C: Tensor, values: int, eps: float
) -> tuple[Tensor, Tensor]:
    """Query and key heads normed per head and rotated, and value heads, laid out for attention.

    `values` heads of values follow N turned ones in the joint projection.

    Shapes: qkv [B, S, (N + values) * C], weight [N, C], cosine and sine [S, 1, C] to [B, N, S, C], [B, values, S, C]
    """
    if native.usable(qkv_BSQ, weight_NC, cosine_S1C) and weight_NC.shape[1] <= MOST_NATIVE_CHANNELS:
        return _Heads.apply(qkv_BSQ, weight_NC, cosine_S1C, sine_S1C, values, eps)  # type: ignore[return-value]
    turned, channels = weight_NC.shape
    qk_BSNC = qkv_BSQ[..., : turned * channels].unflatten(2, (turned, channels))
    v_BSGC = qkv_BSQ[..., turned * channels :].unflatten(2, (values, channels))
    turned_BSNC = norm_rotate(qk_BSNC, weight_NC, cosine_S1C, sine_S1C, eps)
    return turned_BSNC.transpose(1, 2), v_BSGC.transpose(1, 2)
