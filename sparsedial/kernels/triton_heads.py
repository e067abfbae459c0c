"""Queries, keys and values by head, in Triton: normed, rotated and laid out in one launch, and so backward.

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
def _heads_kernel(
    qkv, q_norm, k_norm, cosine, sine, q, k, v, tokens, positions, heads, kv_heads, half, eps,
    NORMED: tl.constexpr, ROWS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    """A block of tokens of one head: to q, k [B, heads, S, C] rotated, or to v."""
    token, channel, head = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, HALF), tl.program_id(1)
    known, sequence, position = token < tokens, token // positions, token % positions
    all_heads = heads + 2 * kv_heads
    low, high = _halves(qkv + (token.to(tl.int64) * all_heads + head)[:, None] * 2 * half, known, channel, half)
    if head < heads + kv_heads:
        if NORMED:
            scale = tl.rsqrt((tl.sum(low * low, 1) + tl.sum(high * high, 1)) / (2 * half) + eps)[:, None]
            w_low, w_high = _weights(q_norm if head < heads else k_norm, channel, half)
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
    dq, dk, dv, qkv, q_norm, k_norm, cosine, sine, dqkv, parts, tokens, positions, heads, kv_heads, half, eps,
    dq_b, dq_h, dq_s, dk_b, dk_h, dk_s, dv_b, dv_h, dv_s,
    NORMED: tl.constexpr, ROWS: tl.constexpr, HALF: tl.constexpr,
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
        low, high = _halves(dq + (sequence * dq_b + head * dq_h + position * dq_s)[:, None], known, channel, half)
    else:
        own = head - heads
        low, high = _halves(dk + (sequence * dk_b + own * dk_h + position * dk_s)[:, None], known, channel, half)
    cos_low, cos_high = _halves(cosine + position[:, None] * 2 * half, known, channel, half)
    sin_low, sin_high = _halves(sine + position[:, None] * 2 * half, known, channel, half)
    low, high = low * cos_low + high * sin_high, high * cos_high + low * sin_low
    if NORMED:
        x_low, x_high = _halves(qkv + at, known, channel, half)
        scale = tl.rsqrt((tl.sum(x_low * x_low, 1) + tl.sum(x_high * x_high, 1)) / (2 * half) + eps)[:, None]
        x_low, x_high = x_low * scale, x_high * scale
        part = parts + (head * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * 2 * half
        tl.store(part + channel, tl.sum(low * x_low, 0), mask=channel < half)
        tl.store(part + half + channel, tl.sum(high * x_high, 0), mask=channel < half)
        w_low, w_high = _weights(q_norm if head < heads else k_norm, channel, half)
        low, high = low * w_low, high * w_high
        along = ((tl.sum(low * x_low, 1) + tl.sum(high * x_high, 1)) / (2 * half))[:, None]
        low, high = scale * (low - x_low * along), scale * (high - x_high * along)
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
        sizes = {"NORMED": q_norm_C is not None, "ROWS": max(1, min(64, BLOCK_VALUES // (2 * half))), "HALF": half}
        ctx.numbers = sequences * positions, positions, heads, kv_heads, head_dim // 2, eps
        ctx.grid = triton_launch.blocks_in(sequences * positions, sizes["ROWS"]), heads + 2 * kv_heads
        ctx.sizes = sizes
        q, k, v = (qkv_BSQ.new_empty(sequences, n, positions, head_dim) for n in (heads, kv_heads, kv_heads))
        norms = (qkv_BSQ, qkv_BSQ) if q_norm_C is None else (q_norm_C, k_norm_C)
        with triton_launch.on(qkv_BSQ):
            triton_launch.launch(
                _heads_kernel, ctx.grid, qkv_BSQ, *norms, cosine_SC, sine_SC, q, k, v, *ctx.numbers, **sizes
            )
        ctx.save_for_backward(qkv_BSQ, q_norm_C, k_norm_C, cosine_SC, sine_SC)
        return q, k, v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        qkv_BSQ, q_norm_C, k_norm_C, cosine_SC, sine_SC = ctx.saved_tensors
        slopes = tuple(slope if slope.stride(3) == 1 else slope.contiguous() for slope in slopes)
        strides = [stride for slope in slopes for stride in slope.stride()[:3]]
        dqkv_BSQ, (blocks, _), (_, _, heads, kv_heads, *_) = torch.empty_like(qkv_BSQ), ctx.grid, ctx.numbers
        head_dim, norms = cosine_SC.shape[1], (qkv_BSQ, qkv_BSQ) if q_norm_C is None else (q_norm_C, k_norm_C)
        parts = qkv_BSQ.new_empty((heads + kv_heads) * blocks, head_dim, dtype=torch.float32)
        with triton_launch.on(qkv_BSQ):
            triton_launch.launch(
                _heads_backward_kernel, ctx.grid, *slopes, qkv_BSQ, *norms, cosine_SC, sine_SC, dqkv_BSQ, parts,
                *ctx.numbers, *strides, **ctx.sizes,
            )  # fmt: skip
            if q_norm_C is None:
                return dqkv_BSQ, None, None, None, None, None, None
            dq_norm_C = sum_rows(parts[: heads * blocks], q_norm_C)
            dk_norm_C = sum_rows(parts[heads * blocks :], k_norm_C)
        return dqkv_BSQ, dq_norm_C, dk_norm_C, None, None, None, None


def by_head(
    qkv_BSQ: Tensor,
    norms: tuple[Tensor, Tensor] | None,
    rotary: tuple[Tensor, Tensor],
    heads: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Equals `fused.by_head`."""
    return _Heads.apply(qkv_BSQ.contiguous(), *(norms or (None, None)), *rotary, heads, eps)  # type: ignore[return-value]
