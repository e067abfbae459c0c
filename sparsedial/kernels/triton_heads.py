"""Queries, keys and values by head, in Triton: normed, rotated and laid out in one launch, and so backward.

A norm of each head has one weight for all heads. A norm over all heads (OLMoE's) has a weight for every channel, and a
launch before finds the tokens' scales.

B sequences, S positions, T tokens (B*S), H query heads, G key-value heads, N all of them (H + 2G), C head_dim,
Q = N*C, P parts of tokens.
"""

# pyright: reportGeneralTypeIssues=false
from __future__ import annotations

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparsedial.kernels import triton_launch
from sparsedial.kernels.triton_norm import sum_rows

BLOCK_VALUES = 4096  # that a program holds of a head at once


@triton.jit
def _halves(at, row_known, channel, half):
    """The two halves of rows' channels, as float32."""
    known = row_known[:, None] & (channel < half)[None, :]
    low = tl.load(at + channel[None, :], mask=known, other=0.0).to(tl.float32)
    return low, tl.load(at + half + channel[None, :], mask=known, other=0.0).to(tl.float32)


@triton.jit
def _store_halves(at, low, high, row_known, channel, half):
    known = row_known[:, None] & (channel < half)[None, :]
    tl.store(at + channel[None, :], low.to(at.dtype.element_ty), mask=known)
    tl.store(at + half + channel[None, :], high.to(at.dtype.element_ty), mask=known)


@triton.jit
def _weights(norm, channel, half):
    low = tl.load(norm + channel, mask=channel < half, other=0.0).to(tl.float32)
    return low[None, :], tl.load(norm + half + channel, mask=channel < half, other=0.0).to(tl.float32)[None, :]


@triton.jit
def _scales_kernel(qkv, scales, tokens, heads, kv_heads, half, eps, ROWS: tl.constexpr, HALF: tl.constexpr):
    """1 / rms of a block of tokens, over all their queries or all their keys: [T, 2]."""
    token, channel, which = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, HALF), tl.program_id(1)
    known, own = token < tokens, tl.where(which == 0, heads, kv_heads)
    at = qkv + (token.to(tl.int64) * (heads + 2 * kv_heads) + which * heads)[:, None] * 2 * half
    total = tl.zeros((ROWS,), tl.float32)
    for head in range(own):
        low, high = _halves(at + head * 2 * half, known, channel, half)
        total += tl.sum(low * low, 1) + tl.sum(high * high, 1)
    tl.store(scales + token * 2 + which, tl.rsqrt(total / (own * 2 * half) + eps), mask=known)


@triton.jit
def _turned_back(slope, known, position, channel, cosine, sine, half):
    """A slope before the rotation."""
    low, high = _halves(slope, known, channel, half)
    cos_low, cos_high = _halves(cosine + position[:, None] * 2 * half, known, channel, half)
    sin_low, sin_high = _halves(sine + position[:, None] * 2 * half, known, channel, half)
    return low * cos_low + high * sin_high, high * cos_high + low * sin_low


@triton.jit
def _along_kernel(
    dq, dk, qkv, q_norm, k_norm, cosine, sine, scales, along, tokens, positions, heads, kv_heads, half,
    dq_b, dq_h, dq_s, dk_b, dk_h, dk_s, ROWS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """The mean of slope times normed value over all queries or all keys of tokens: [T, 2]."""
    token, channel, which = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, HALF), tl.program_id(1)
    known, sequence, position = token < tokens, (token // positions).to(tl.int64), (token % positions).to(tl.int64)
    at = qkv + (token.to(tl.int64) * (heads + 2 * kv_heads) + which * heads)[:, None] * 2 * half
    own = tl.where(which == 0, heads, kv_heads)
    if which == 0:
        slope = dq + (sequence * dq_b + position * dq_s)[:, None]
    else:
        slope = dk + (sequence * dk_b + position * dk_s)[:, None]
    stride, norm = tl.where(which == 0, dq_h, dk_h), q_norm if which == 0 else k_norm
    total = tl.zeros((ROWS,), tl.float32)
    for head in range(own):
        low, high = _turned_back(slope + head * stride, known, position, channel, cosine, sine, half)
        w_low, w_high = _weights(norm + head * 2 * half, channel, half)
        x_low, x_high = _halves(at + head * 2 * half, known, channel, half)
        total += tl.sum(low * w_low * x_low, 1) + tl.sum(high * w_high * x_high, 1)
    scale = tl.load(scales + token * 2 + which, mask=known, other=0.0)
    tl.store(along + token * 2 + which, total * scale / (own * 2 * half), mask=known)


@triton.jit
def _heads_kernel(
    qkv, q_norm, k_norm, cosine, sine, q, k, v, scales, tokens, positions, heads, kv_heads, half, eps,
    NORM: tl.constexpr, ROWS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """A block of tokens of one head: to q, k [B, heads, S, C] rotated, or to v."""
    token, channel, head = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, HALF), tl.program_id(1)
    known, sequence, position = token < tokens, token // positions, token % positions
    all_heads = heads + 2 * kv_heads
    low, high = _halves(qkv + (token.to(tl.int64) * all_heads + head)[:, None] * 2 * half, known, channel, half)
    if head < heads + kv_heads:
        if NORM == "head":
            scale = tl.rsqrt((tl.sum(low * low, 1) + tl.sum(high * high, 1)) / (2 * half) + eps)[:, None]
            w_low, w_high = _weights(q_norm if head < heads else k_norm, channel, half)
            low, high = low * scale * w_low, high * scale * w_high
        if NORM == "full":
            scale = tl.load(scales + token * 2 + (head >= heads).to(tl.int32), mask=known, other=0.0)[:, None]
            weights = q_norm + head * 2 * half if head < heads else k_norm + (head - heads) * 2 * half
            w_low, w_high = _weights(weights, channel, half)
            low, high = low * scale * w_low, high * scale * w_high
        cos_low, cos_high = _halves(cosine + position[:, None] * 2 * half, known, channel, half)
        sin_low, sin_high = _halves(sine + position[:, None] * 2 * half, known, channel, half)
        low, high = low * cos_low + high * sin_low, high * cos_high + low * sin_high
    if head < heads:
        to = q + ((sequence.to(tl.int64) * heads + head) * positions + position)[:, None] * 2 * half
        _store_halves(to, low, high, known, channel, half)
    elif head < heads + kv_heads:
        to = k + ((sequence.to(tl.int64) * kv_heads + head - heads) * positions + position)[:, None] * 2 * half
        _store_halves(to, low, high, known, channel, half)
    else:
        own = head - heads - kv_heads
        to = v + ((sequence.to(tl.int64) * kv_heads + own) * positions + position)[:, None] * 2 * half
        _store_halves(to, low, high, known, channel, half)


@triton.jit
def _heads_backward_kernel(
    dq, dk, dv, qkv, q_norm, k_norm, cosine, sine, dqkv, parts, scales, along, tokens, positions, heads, kv_heads,
    half, eps, dq_b, dq_h, dq_s, dk_b, dk_h, dk_s, dv_b, dv_h, dv_s,
    NORM: tl.constexpr, ROWS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """The gradient of a block of tokens of one head, and its part of the norm's gradient."""
    token, channel, head = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, HALF), tl.program_id(1)
    known, sequence, position = token < tokens, (token // positions).to(tl.int64), (token % positions).to(tl.int64)
    all_heads = heads + 2 * kv_heads
    at = (token.to(tl.int64) * all_heads + head)[:, None] * 2 * half
    if head >= heads + kv_heads:
        own = head - heads - kv_heads
        low, high = _halves(dv + (sequence * dv_b + own * dv_h + position * dv_s)[:, None], known, channel, half)
        _store_halves(dqkv + at, low, high, known, channel, half)
        return
    if head < heads:
        slope = dq + (sequence * dq_b + head * dq_h + position * dq_s)[:, None]
    else:
        slope = dk + (sequence * dk_b + (head - heads) * dk_h + position * dk_s)[:, None]
    low, high = _turned_back(slope, known, position, channel, cosine, sine, half)
    if NORM == "head":
        x_low, x_high = _halves(qkv + at, known, channel, half)
        scale = tl.rsqrt((tl.sum(x_low * x_low, 1) + tl.sum(x_high * x_high, 1)) / (2 * half) + eps)[:, None]
        x_low, x_high = x_low * scale, x_high * scale
        part = parts + (head * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * 2 * half
        tl.store(part + channel, tl.sum(low * x_low, 0), mask=channel < half)
        tl.store(part + half + channel, tl.sum(high * x_high, 0), mask=channel < half)
        w_low, w_high = _weights(q_norm if head < heads else k_norm, channel, half)
        low, high = low * w_low, high * w_high
        mean = ((tl.sum(low * x_low, 1) + tl.sum(high * x_high, 1)) / (2 * half))[:, None]
        low, high = scale * (low - x_low * mean), scale * (high - x_high * mean)
    if NORM == "full":
        x_low, x_high = _halves(qkv + at, known, channel, half)
        scale = tl.load(scales + token * 2 + (head >= heads).to(tl.int32), mask=known, other=0.0)[:, None]
        x_low, x_high = x_low * scale, x_high * scale
        part = parts + (tl.program_id(0) * (heads + kv_heads) + head).to(tl.int64) * 2 * half
        tl.store(part + channel, tl.sum(low * x_low, 0), mask=channel < half)
        tl.store(part + half + channel, tl.sum(high * x_high, 0), mask=channel < half)
        weights = q_norm + head * 2 * half if head < heads else k_norm + (head - heads) * 2 * half
        w_low, w_high = _weights(weights, channel, half)
        mean = tl.load(along + token * 2 + (head >= heads).to(tl.int32), mask=known, other=0.0)[:, None]
        low, high = scale * (low * w_low - x_low * mean), scale * (high * w_high - x_high * mean)
    _store_halves(dqkv + at, low, high, known, channel, half)


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        qkv_BSQ: Tensor,
        q_norm_C: Tensor | None,
        k_norm_C: Tensor | None,
        cosine_SC: Tensor,
        sine_SC: Tensor,
        heads: int,
        eps: float,
    ) -> tuple[Tensor, ...]:
        (sequences, positions, channels), head_dim = qkv_BSQ.shape, cosine_SC.shape[1]
        kv_heads = (channels // head_dim - heads) // 2
        half = triton_launch.power_of_two(head_dim // 2)
        norms, kind = _norms(qkv_BSQ, q_norm_C, k_norm_C, head_dim)
        ctx.sizes = sizes = {"ROWS": max(1, min(64, BLOCK_VALUES // (2 * half))), "HALF": half}
        ctx.numbers = sequences * positions, positions, heads, kv_heads, head_dim // 2
        ctx.eps, ctx.kind = eps, kind
        ctx.grid = triton_launch.blocks_in(sequences * positions, sizes["ROWS"]), heads + 2 * kv_heads
        q, k, v = (qkv_BSQ.new_empty(sequences, n, positions, head_dim) for n in (heads, kv_heads, kv_heads))
        scales_T2 = qkv_BSQ.new_empty(sequences * positions, 2, dtype=torch.float32) if kind == "full" else qkv_BSQ
        with triton_launch.on(qkv_BSQ):
            if kind == "full":
                triton_launch.launch(
                    _scales_kernel, (ctx.grid[0], 2), qkv_BSQ, scales_T2, sequences * positions, heads, kv_heads,
                    head_dim // 2, eps, **sizes,
                )  # fmt: skip
            triton_launch.launch(
                _heads_kernel, ctx.grid, qkv_BSQ, *norms, cosine_SC, sine_SC, q, k, v, scales_T2, *ctx.numbers, eps,
                NORM=kind, **sizes,
            )  # fmt: skip
        ctx.save_for_backward(qkv_BSQ, q_norm_C, k_norm_C, cosine_SC, sine_SC, scales_T2)
        return q, k, v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        qkv_BSQ, q_norm_C, k_norm_C, cosine_SC, sine_SC, scales_T2 = ctx.saved_tensors
        slopes = tuple(slope if slope.stride(3) == 1 else slope.contiguous() for slope in slopes)
        strides = [stride for slope in slopes for stride in slope.stride()[:3]]
        dqkv_BSQ, (blocks, _), (_, _, heads, kv_heads, _) = torch.empty_like(qkv_BSQ), ctx.grid, ctx.numbers
        head_dim, kind = cosine_SC.shape[1], ctx.kind
        norms, _ = _norms(qkv_BSQ, q_norm_C, k_norm_C, head_dim)
        given = (qkv_BSQ, *norms, cosine_SC, sine_SC)
        parts = qkv_BSQ.new_empty((heads + kv_heads) * blocks, head_dim, dtype=torch.float32)
        along_T2 = torch.empty_like(scales_T2) if kind == "full" else scales_T2
        with triton_launch.on(qkv_BSQ):
            if kind == "full":
                triton_launch.launch(
                    _along_kernel, (blocks, 2), *slopes[:2], *given, scales_T2, along_T2, *ctx.numbers, *strides[:6],
                    **ctx.sizes,
                )  # fmt: skip
            triton_launch.launch(
                _heads_backward_kernel, ctx.grid, *slopes, *given, dqkv_BSQ, parts, scales_T2, along_T2, *ctx.numbers,
                ctx.eps, *strides, NORM=kind, **ctx.sizes,
            )  # fmt: skip
            if kind == "none":
                return dqkv_BSQ, None, None, None, None, None, None
            if kind == "full":
                parts = parts.view(blocks, -1)
                of_q, of_k = parts[:, : heads * head_dim], parts[:, heads * head_dim :]
            else:
                of_q, of_k = parts[: heads * blocks], parts[heads * blocks :]
            dq_norm_C, dk_norm_C = sum_rows(of_q, q_norm_C), sum_rows(of_k, k_norm_C)
        return dqkv_BSQ, dq_norm_C, dk_norm_C, None, None, None, None


def _norms(
    qkv_BSQ: Tensor, q_norm_C: Tensor | None, k_norm_C: Tensor | None, head_dim: int
) -> tuple[tuple[Tensor, Tensor], str]:
    """The norms' weights, something in their place where there are none; and what is normed, in the shape's word."""
    if q_norm_C is None or k_norm_C is None:
        return (qkv_BSQ, qkv_BSQ), "none"
    return (q_norm_C, k_norm_C), "head" if len(q_norm_C) == head_dim else "full"


def by_head(
    qkv_BSQ: Tensor,
    norms: tuple[Tensor, Tensor] | None,
    rotary: tuple[Tensor, Tensor],
    heads: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Equals `fused.by_head`."""
    return _Heads.apply(qkv_BSQ.contiguous(), *(norms or (None, None)), *rotary, heads, eps)  # type: ignore[return-value]
