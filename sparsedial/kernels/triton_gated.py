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

BLOCK = 1024


@triton.jit
def _gated_kernel(h, a, values, width, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    known = at < values
    from_ = h + at // width * 2 * width + at % width
    gate = tl.load(from_, mask=known, other=0.0).to(tl.float32)
    up = tl.load(from_ + width, mask=known, other=0.0).to(tl.float32)
    tl.store(a + at, (gate * tl.sigmoid(gate) * up).to(a.dtype.element_ty), mask=known)


@triton.jit
def _gated_backward_kernel(da, h, dh, values, width, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    known = at < values
    row = at // width * 2 * width + at % width
    gate = tl.load(h + row, mask=known, other=0.0).to(tl.float32)
    up = tl.load(h + row + width, mask=known, other=0.0).to(tl.float32)
    slope, sigmoid = tl.load(da + at, mask=known, other=0.0).to(tl.float32), tl.sigmoid(gate)
    tl.store(dh + row, (slope * up * sigmoid * (1 + gate * (1 - sigmoid))).to(dh.dtype.element_ty), mask=known)
    tl.store(dh + row + width, (slope * gate * sigmoid).to(dh.dtype.element_ty), mask=known)


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h_TH: Tensor) -> Tensor:
        ctx.save_for_backward(h_TH)
        a_TF = h_TH.new_empty(*h_TH.shape[:-1], h_TH.shape[-1] // 2)
        _launch(_gated_kernel, h_TH, a_TF, values=a_TF.numel(), width=a_TF.shape[-1])
        return a_TF

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, da_TF: Tensor) -> Tensor:  # type: ignore[override]
        (h_TH,) = ctx.saved_tensors
        dh_TH, da_TF = torch.empty_like(h_TH), da_TF.contiguous()
        _launch(_gated_backward_kernel, da_TF, h_TH, dh_TH, values=da_TF.numel(), width=da_TF.shape[-1])
        return dh_TH


def _launch(kernel: Any, first: Tensor, *others: Tensor, values: int, width: int) -> None:
    with triton_launch.on(first):
        triton_launch.launch(
            kernel, (triton_launch.blocks_in(values, BLOCK),), first, *others, values, width, BLOCK=BLOCK
        )


def activated(h_TH: Tensor) -> Tensor:
    """Equals `reference.activate`."""
    return _Gated.apply(h_TH.contiguous())  # type: ignore[return-value]
