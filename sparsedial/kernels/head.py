"""Un-embedding and cross-entropy in pieces, with the gradient in the same pass: logits of a whole batch never exist.

T tokens, N tokens of a piece, D d_model, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from sparsedial.kernels import triton_launch

PIECE_BYTES = 2**28  # of logits: on an H100 still a product of thousands of rows for 50,000 words


class _InPieces(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_TD: Tensor, table_VD: Tensor, target_T: Tensor, share_T: Tensor, cap: float, learning: bool
    ) -> Tensor:
        each_T = torch.empty_like(share_T)
        rows = piece_rows(len(x_TD), table_VD)
        pieces = list(zip(*(tensor.split(rows) for tensor in (x_TD, target_T, share_T, each_T)), strict=True))
        dx_TD = torch.empty_like(x_TD) if learning else None
        dtable_VD: Tensor | None = None
        for number, (x_ND, target_N, share_N, each_N) in enumerate(pieces):
            logits_NV = x_ND @ table_VD.T
            cross_entropy(logits_NV, target_N, share_N if learning else None, each_N, cap)
            if dx_TD is not None:
                torch.mm(logits_NV, table_VD, out=dx_TD[number * rows : number * rows + len(x_ND)])
                dtable_VD = _added(dtable_VD, logits_NV.T @ x_ND, len(pieces))
        if learning:
            assert dtable_VD is not None
            ctx.save_for_backward(dx_TD, dtable_VD.to(table_VD.dtype))
        return each_T @ share_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        dx_TD, dtable_VD = ctx.saved_tensors
        return dx_TD.mul_(dloss), dtable_VD.mul_(dloss), None, None, None, None  # a second backward pass is an error


def piece_rows(tokens: int, table_VD: Tensor) -> int:
    """Tokens of a piece: as many pieces as there must be, of one size, so that no product is left with a few rows."""
    most = max(1, PIECE_BYTES // (len(table_VD) * table_VD.element_size()))
    return triton_launch.blocks_in(tokens, triton_launch.blocks_in(tokens, most))


def _added(total_VD: Tensor | None, product_VD: Tensor, pieces: int) -> Tensor:
    """The sum so far and a product; of several pieces in float32, so that each adds no rounding."""
    if total_VD is None:
        return product_VD if pieces == 1 else product_VD.float()
    return total_VD.add_(product_VD)


def cross_entropy(logits_NV: Tensor, target_N: Tensor, share_N: Tensor | None, each_N: Tensor, cap: float) -> None:
    """Write the cross-entropy of each token, nats; with shares the gradient of their weighted sum replaces the
    logits. Above 0, `cap` bounds logits to cap * tanh(logits / cap).

    Shapes: logits [N, V], target [N] of int64, share [N] and each [N] of float32
    """
    if logits_NV.is_cuda and triton_launch.available():
        from sparsedial.kernels.triton_head import cross_entropy as fused

        fused(logits_NV, target_N, share_N, each_N, cap)
        return
    z_NV = logits_NV.float()
    z_NV = cap * torch.tanh(z_NV / cap) if cap else z_NV
    each_N.copy_(functional.cross_entropy(z_NV, target_N, reduction="none"))
    if share_N is not None:
        slope_NV = torch.softmax(z_NV, 1).scatter_add_(1, target_N[:, None], torch.full_like(each_N, -1)[:, None])
        logits_NV.copy_(slope_NV * (1 - (z_NV / cap).square() if cap else 1) * share_N[:, None])


def loss_in_pieces(
    x_TD: Tensor, table_VD: Tensor, target_T: Tensor, weight_T: Tensor | None = None, cap: float = 0.0
) -> Tensor:
    """The mean cross-entropy of x @ table.T; with weights the weighted mean, and 0 where all of them are 0.

    Shapes: x [T, D] and table [V, D] of one type, target [T] of int64, weight [T] of float32 to [] of float32
    """
    if weight_T is None:
        share_T = torch.full(target_T.shape, 1 / len(target_T), device=x_TD.device)
    else:
        share_T = weight_T / weight_T.sum().clamp(min=torch.finfo(weight_T.dtype).tiny)
    return _InPieces.apply(x_TD, table_VD, target_T, share_T, cap, torch.is_grad_enabled())  # type: ignore[return-value]


@torch.no_grad()
def losses_in_pieces(x_TD: Tensor, table_VD: Tensor, target_T: Tensor, cap: float = 0.0) -> Tensor:
    """The cross-entropy of each token, of which `loss_in_pieces` is the mean. Shapes: as there, to [T]"""
    each_T = torch.empty(target_T.shape, device=x_TD.device)
    rows = piece_rows(len(x_TD), table_VD)
    for x_ND, target_N, each_N in zip(*(tensor.split(rows) for tensor in (x_TD, target_T, each_T)), strict=True):
        cross_entropy(x_ND @ table_VD.T, target_N, None, each_N, cap)
    return each_T
