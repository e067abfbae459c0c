"""Norms in Triton: of the stream, with what passes beside it; and of queries and keys, rotated and laid out by head.

T tokens (B sequences of S positions), D channels of a row, P programs, C head_dim, N heads of one kind (Q all heads'
channels: queries, keys, values).
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

BLOCK_VALUES = 2048  # that four warps hold of a tensor at once; with twice as many, registers spill
MOST_PROGRAMS = 512  # of a backward pass, each of which writes a part of the weight's gradient
SUM_ROWS, SUM_COLUMNS = 256, 16  # of parts that a program adds up at a time: few rounds, each of which waits for memory


@triton.jit(do_not_specialize=["tokens"])
def _norm_kernel(x, weight, y, tokens, width, eps, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """y = x / rms(x) * weight."""
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK)
    known = (row < tokens)[:, None] & (column < width)[None, :]
    at = row[:, None].to(tl.int64) * width + column[None, :]
    values = tl.load(x + at, mask=known, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(values * values, 1) / width + eps)
    weights = tl.load(weight + column, mask=column < width, other=0.0).to(tl.float32)
    tl.store(y + at, (values * scale[:, None] * weights[None, :]).to(y.dtype.element_ty), mask=known)


@triton.jit(do_not_specialize=["tokens", "blocks"])
def _norm_backward_kernel(
    dy, passed, x, weight, dx, parts, tokens, width, eps, blocks,
    PASSED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dx, with the gradient of what passed beside; and this program's part of the weight's gradient."""
    column = tl.arange(0, BLOCK)
    weights = tl.load(weight + column, mask=column < width, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
        row = block * ROWS + tl.arange(0, ROWS)
        known = (row < tokens)[:, None] & (column < width)[None, :]
        at = row[:, None].to(tl.int64) * width + column[None, :]
        values = tl.load(x + at, mask=known, other=0.0).to(tl.float32)
        slopes = tl.load(dy + at, mask=known, other=0.0).to(tl.float32)
        scale = tl.rsqrt(tl.sum(values * values, 1) / width + eps)[:, None]
        normed = values * scale
        total += tl.sum(slopes * normed, 0)
        slopes *= weights[None, :]
        found = scale * (slopes - normed * (tl.sum(slopes * normed, 1) / width)[:, None])
        if PASSED:
            found += tl.load(passed + at, mask=known, other=0.0).to(tl.float32)
        tl.store(dx + at, found.to(dx.dtype.element_ty), mask=known)
    tl.store(parts + tl.program_id(0) * width + column, total, mask=column < width)


@triton.jit(do_not_specialize=["rows"])
def _sum_kernel(parts, total, rows, stride, width, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """total = the sum of the rows of parts, `stride` apart."""
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    found = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, rows, ROWS):
        row = first + tl.arange(0, ROWS)
        known = (row < rows)[:, None] & (column < width)[None, :]
        found += tl.sum(tl.load(parts + row[:, None] * stride + column[None, :], mask=known, other=0.0), 0)
    tl.store(total + column, found.to(total.dtype.element_ty), mask=column < width)


def sum_rows(parts_PD: Tensor, like_D: Tensor) -> Tensor:
    """The sum of float32 rows, in the type of another tensor. Shapes: [P, D] to [D]"""
    (rows, width), total_D = parts_PD.shape, torch.empty_like(like_D)
    block = min(SUM_COLUMNS, triton_launch.power_of_two(width))
    triton_launch.launch(
        _sum_kernel, (triton_launch.blocks_in(width, block),), parts_PD, total_D, rows, parts_PD.stride(0), width,
        ROWS=SUM_ROWS, BLOCK=block,
    )  # fmt: skip
    return total_D


def _sizes(x_TD: Tensor) -> tuple[int, dict[str, int]]:
    """How many blocks of rows there are, and their sizes."""
    tokens, width = x_TD.shape
    block = triton_launch.power_of_two(width)
    rows = max(1, min(32, BLOCK_VALUES // block))
    return triton_launch.blocks_in(tokens, rows), {"ROWS": rows, "BLOCK": block}


def _warps(sizes: dict[str, int]) -> int:
    """More for wide rows, which a program holds whole."""
    return max(4, min(16, 4 * sizes["BLOCK"] // BLOCK_VALUES))


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, weight_D: Tensor, eps: float, beside: bool) -> Any:
        blocks, sizes = _sizes(x_TD)
        y_TD = x_TD.new_empty(x_TD.shape, dtype=weight_D.dtype)
        with triton_launch.on(x_TD):
            triton_launch.launch(
                _norm_kernel, (blocks,), x_TD, weight_D, y_TD, *x_TD.shape, eps, **sizes, warps=_warps(sizes)
            )
        ctx.save_for_backward(x_TD, weight_D)
        ctx.eps = eps
        return (x_TD.view_as(x_TD), y_TD) if beside else y_TD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x_TD, weight_D = ctx.saved_tensors
        *passed, dy_TD = (slope.contiguous() for slope in slopes)
        blocks, sizes = _sizes(x_TD)
        programs = min(blocks, MOST_PROGRAMS)
        dx_TD = torch.empty_like(x_TD)
        parts_PD = x_TD.new_empty(programs, x_TD.shape[1], dtype=torch.float32)
        with triton_launch.on(x_TD):
            triton_launch.launch(
                _norm_backward_kernel, (programs,), dy_TD, passed[0] if passed else dy_TD, x_TD, weight_D, dx_TD,
                parts_PD, *x_TD.shape, ctx.eps, blocks, PASSED=bool(passed), **sizes,
                warps=_warps(sizes),
            )  # fmt: skip
            dweight_D = sum_rows(parts_PD, weight_D)
        return dx_TD, dweight_D, None, None


def norm(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """Equals `fused.rms_norm`."""
    return _Norm.apply(x.reshape(-1, x.shape[-1]), weight_D, eps, False).view(x.shape)  # type: ignore[union-attr]


def norm_beside(x: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Equals `fused.norm_beside`."""
    passed, normed = _Norm.apply(x.reshape(-1, x.shape[-1]), weight_D, eps, True)  # type: ignore[misc]
    return passed.view(x.shape), normed.view(x.shape)
