"""SwiGLU's activation in Triton. T tokens, F width, H = 2F (gate half first)."""

# pyright: reportGeneralTypeIssues=false
from __future__ import annotations

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparsedial.kernels import triton_launch

ROWS, COLUMNS = 16, 64  # of a program


@triton.jit
def _places(tokens, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Where a program's values lie in a, and in h; and which of them are there.

    (From a number for each value the row would follow by a division of 64 bits, which takes longer than all else.)
    """
    column_blocks = tl.cdiv(width, COLUMNS)
    program = tl.program_id(0)
    row = (program // column_blocks * ROWS + tl.arange(0, ROWS))[:, None].to(tl.int64)
    column = (program % column_blocks * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    return row * width + column, row * 2 * width + column, (row < tokens) & (column < width)


@triton.jit(do_not_specialize=["tokens"])
def _gated_kernel(h, a, tokens, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    at, from_, known = _places(tokens, width, ROWS, COLUMNS)
    gate = tl.load(h + from_, mask=known, other=0.0).to(tl.float32)
    up = tl.load(h + from_ + width, mask=known, other=0.0).to(tl.float32)
    tl.store(a + at, (gate * tl.sigmoid(gate) * up).to(a.dtype.element_ty), mask=known)


@triton.jit(do_not_specialize=["tokens"])
def _gated_backward_kernel(da, h, dh, tokens, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    at, from_, known = _places(tokens, width, ROWS, COLUMNS)
    gate = tl.load(h + from_, mask=known, other=0.0).to(tl.float32)
    up = tl.load(h + from_ + width, mask=known, other=0.0).to(tl.float32)
    slope, sigmoid = tl.load(da + at, mask=known, other=0.0).to(tl.float32), tl.sigmoid(gate)
    tl.store(dh + from_, (slope * up * sigmoid * (1 + gate * (1 - sigmoid))).to(dh.dtype.element_ty), mask=known)
    tl.store(dh + from_ + width, (slope * gate * sigmoid).to(dh.dtype.element_ty), mask=known)


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h_TH: Tensor) -> Tensor:
        ctx.save_for_backward(h_TH)
        a_TF = h_TH.new_empty(*h_TH.shape[:-1], h_TH.shape[-1] // 2)
        _launch(_gated_kernel, h_TH, a_TF, width=a_TF.shape[-1])
        return a_TF

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, da_TF: Tensor) -> Tensor:  # type: ignore[override]
        (h_TH,) = ctx.saved_tensors
        dh_TH, da_TF = torch.empty_like(h_TH), da_TF.contiguous()
        _launch(_gated_backward_kernel, da_TF, h_TH, dh_TH, width=da_TF.shape[-1])
        return dh_TH


def _launch(kernel: Any, *tensors: Tensor, width: int) -> None:
    """Launch over blocks of tokens and of columns."""
    tokens = tensors[-1].numel() // tensors[-1].shape[-1]
    grid = (triton_launch.blocks_in(tokens, ROWS) * triton_launch.blocks_in(width, COLUMNS),)
    with triton_launch.on(tensors[0]):
        triton_launch.launch(kernel, grid, *tensors, tokens, width, ROWS=ROWS, COLUMNS=COLUMNS)


def activated(h_TH: Tensor) -> Tensor:
    """Equals `reference.activate`."""
    return _Gated.apply(h_TH.contiguous())  # type: ignore[return-value]
