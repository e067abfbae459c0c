"""SwiGLU feed-forward of a dense layer, forward and backward in one autograd node.

T rows, D d_model, F width, H = 2F (gate half first, then up).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import increment_version
from torch.nn import functional

from sparsedial.kernels import native


def reference_swiglu(x_TD: Tensor, w_in_DH: Tensor, w_out_FD: Tensor) -> Tensor:
    """The readable twin: (silu(x W_gate) * x W_up) W_out.

    Source: Shazeer 2020 (arXiv 2002.05202)
    """
    gate_TF, up_TF = (x_TD @ w_in_DH).chunk(2, dim=-1)
    return (functional.silu(gate_TF) * up_TF) @ w_out_FD


def activate(h_NH: Tensor) -> tuple[Tensor, Tensor]:
    """silu(gate) * up from their concatenation over the last axis, and silu(gate) for the way back."""
    gate_NF, up_NF = h_NH.chunk(2, dim=-1)
    silu_NF = functional.silu(gate_NF)
    return silu_NF * up_NF, silu_NF


class _NativeSwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, w_in_DH: Tensor, w_out_FD: Tensor) -> Tensor:
        h_TH = x_TD @ w_in_DH
        (rows, _), width = h_TH.shape, len(w_out_FD)
        a_TF = h_TH.new_empty(rows, width)
        native.module.activate(h_TH.data_ptr(), a_TF.data_ptr(), rows, width, torch.get_num_threads())
        ctx.save_for_backward(x_TD, w_in_DH, w_out_FD, h_TH)
        return a_TF @ w_out_FD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        x_TD, w_in_DH, w_out_FD, h_TH = ctx.saved_tensors
        da_TF = dy_TD @ w_out_FD.t()
        a_TF = torch.empty_like(da_TF)
        native.module.activate_backward(
            h_TH.data_ptr(), da_TF.data_ptr(), a_TF.data_ptr(), *a_TF.shape, torch.get_num_threads()
        )
        increment_version(h_TH)  # it holds its gradient now: a second backward pass is an error
        return h_TH @ w_in_DH.t(), x_TD.t() @ h_TH, a_TF.t() @ dy_TD


def activate_backward(h_NH: Tensor, silu_NF: Tensor, da_NF: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of `activate` with respect to its input, and `activate` itself once more; overwrites all it is given.

    The product is cheaper to do again than to keep.
    """
    gate_NF, up_NF = h_NH.chunk(2, dim=-1)
    a_NF = silu_NF * up_NF
    silu_NF.mul_(da_NF)
    da_NF.mul_(up_NF)
    torch.ops.aten.silu_backward.grad_input(da_NF, gate_NF, grad_input=gate_NF)
    up_NF.copy_(silu_NF)
    return h_NH, a_NF


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, w_in_DH: Tensor, w_out_FD: Tensor) -> Tensor:
        h_TH = x_TD @ w_in_DH
        a_TF, silu_TF = activate(h_TH)
        ctx.save_for_backward(x_TD, w_in_DH, w_out_FD, h_TH, silu_TF)
        return a_TF @ w_out_FD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        x_TD, w_in_DH, w_out_FD, h_TH, silu_TF = ctx.saved_tensors
        dh_TH, a_TF = activate_backward(h_TH, silu_TF, dy_TD @ w_out_FD.t())
        return dh_TH @ w_in_DH.t(), x_TD.t() @ dh_TH, a_TF.t() @ dy_TD


def swiglu(x_TD: Tensor, w_in_DH: Tensor, w_out_FD: Tensor) -> Tensor:
    """SwiGLU over rows; equals `reference_swiglu`. Its backward pass runs once.

    Shapes: x [T, D], w_in [D, 2F] (gate half first), w_out [F, D] to [T, D]
    """
    if native.usable(x_TD, w_in_DH, w_out_FD):
        return _NativeSwiGLU.apply(x_TD, w_in_DH, w_out_FD)  # type: ignore[return-value]
    return _SwiGLU.apply(x_TD, w_in_DH, w_out_FD)  # type: ignore[return-value]
