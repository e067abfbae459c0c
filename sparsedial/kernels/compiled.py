"""The sparse layer by the compiled kernels, on a CPU in float32.

T tokens, K chosen experts, E experts, D d_model, F d_expert, H = 2F (gate half first, then up).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import increment_version

from sparsedial.kernels import native

Gradients = tuple[Tensor, Tensor, Tensor, Tensor]  # of x, w_in, w_out and gates


def sizes_of(w_out_EFD: Tensor, chosen_TK: Tensor) -> dict[str, int]:
    """The sizes of a layer, as the kernels take them."""
    (tokens, top_k), (experts, width, d_model) = chosen_TK.shape, w_out_EFD.shape
    return {"tokens": tokens, "d": d_model, "f": width, "e": experts, "k": top_k}


def kept_values(w_out_EFD: Tensor, chosen_TK: Tensor) -> int:
    """How many values the backward pass needs from the forward pass."""
    sizes = {name: int(size) for name, size in sizes_of(w_out_EFD, chosen_TK).items() if name != "d"}
    return native.module.experts_saved(**sizes)


def forward(
    x_TD: Tensor, w_in_EDH: Tensor, w_out_EFD: Tensor, chosen_TK: Tensor, gates_TK: Tensor, top_k_T: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The layer, and what its backward pass needs. All are contiguous, chosen and top_k int64, the rest float32."""
    y_TD, saved = torch.empty_like(x_TD), x_TD.new_empty(kept_values(w_out_EFD, chosen_TK))
    native.module.experts_forward(
        x=x_TD, w_in=w_in_EDH, w_out=w_out_EFD, chosen=chosen_TK, gates=gates_TK, top_k=top_k_T, y=y_TD, saved=saved,
        threads=torch.get_num_threads(), **sizes_of(w_out_EFD, chosen_TK),
    )  # fmt: skip
    return y_TD, saved


def backward(
    dy_TD: Tensor, x_TD: Tensor, w_in_EDH: Tensor, w_out_EFD: Tensor, gates_TK: Tensor, saved: Tensor
) -> Gradients:
    """The gradients; `saved` holds others afterwards."""
    dx_TD, dw_in_EDH, dw_out_EFD, dgates_TK = map(torch.empty_like, (x_TD, w_in_EDH, w_out_EFD, gates_TK))
    native.module.experts_backward(
        dy=dy_TD.contiguous(), x=x_TD, w_in=w_in_EDH, w_out=w_out_EFD, gates=gates_TK, saved=saved, dx=dx_TD,
        dw_in=dw_in_EDH, dw_out=dw_out_EFD, dgates=dgates_TK, threads=torch.get_num_threads(),
        **sizes_of(w_out_EFD, gates_TK),
    )  # fmt: skip
    return dx_TD, dw_in_EDH, dw_out_EFD, dgates_TK


class Compiled(torch.autograd.Function):
    """`forward` with its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x_TD: Tensor,
        w_in_EDH: Tensor,
        w_out_EFD: Tensor,
        chosen_TK: Tensor,
        gates_TK: Tensor,
        top_k_T: Tensor | None,
    ) -> Tensor:
        y_TD, saved = forward(x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK, top_k_T)
        ctx.save_for_backward(x_TD, w_in_EDH, w_out_EFD, gates_TK, saved)
        return y_TD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x_TD, w_in_EDH, w_out_EFD, gates_TK, saved = ctx.saved_tensors
        dx_TD, dw_in_EDH, dw_out_EFD, dgates_TK = backward(dy_TD, x_TD, w_in_EDH, w_out_EFD, gates_TK, saved)
        increment_version(saved)  # it holds gradients now: a second backward pass is an error
        return dx_TD, dw_in_EDH, dw_out_EFD, None, dgates_TK, None
