"""The sparse feed-forward layer: rows go to their experts and come back weighted.

T tokens, K chosen experts, R = T*K routed rows, E experts, D d_model, F d_expert, H = 2F (gate half first, then up),
N rows as they lie in memory, grouped by expert (N = R sorted, N = E*M padded), M rows of the fullest expert.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import increment_version

from sparsedial.errors import UserError, nearest
from sparsedial.kernels import native
from sparsedial.kernels.swiglu import activate, activate_backward, reference_swiglu


def reference(x_TD: Tensor, w_in_EDH: Tensor, w_out_EFD: Tensor, chosen_TK: Tensor, gates_TK: Tensor) -> Tensor:
    """The readable twin that defines the layer: y_t = sum_k gates[t, k] * expert[chosen[t, k]](x_t).

    PyTorch's FLOP counter sees all of it.
    """
    y_TD = torch.zeros_like(x_TD)
    for expert, (w_in_DH, w_out_FD) in enumerate(zip(w_in_EDH.unbind(0), w_out_EFD.unbind(0), strict=True)):
        token_n, choice_n = (chosen_TK == expert).nonzero(as_tuple=True)
        y_nD = reference_swiglu(x_TD[token_n], w_in_DH, w_out_FD)
        y_TD = y_TD.index_add(0, token_n, y_nD * gates_TK[token_n, choice_n, None].to(y_nD.dtype))
    return y_TD


@dataclass(frozen=True)
class Rows:
    """Where every routed row lies: row r = t*K + k at place `place_of_row_R[r]`, grouped by expert."""

    row_of_place_N: Tensor  # R where a place is padding
    place_of_row_R: Tensor
    ends_E: Tensor  # where each expert's rows end when they lie without gaps
    experts: int
    padded_to: int  # M, or 0 where rows lie without gaps


def sort_rows(chosen_TK: Tensor, experts: int, padded: bool) -> Rows:
    """Group routed rows by expert.

    On CPU, NumPy's stable sort of 16-bit keys is a radix sort, measured 2-6 times as fast as torch.sort.
    """
    chosen_R = chosen_TK.reshape(-1)
    keys_R = chosen_R.numpy(force=True).astype(np.int16)
    order_R = np.argsort(keys_R, kind="stable")
    sizes_E = np.bincount(keys_R, minlength=experts)
    most = int(sizes_E.max(initial=0))
    rows = len(keys_R)
    places_R = np.arange(rows)
    row_of_place_N = order_R
    if padded:
        first_E = np.concatenate([[0], np.cumsum(sizes_E)[:-1]])
        places_R = places_R + np.repeat(np.arange(experts) * most - first_E, sizes_E)
        row_of_place_N = np.full(experts * most, rows)
        row_of_place_N[places_R] = order_R
    place_of_row_R = np.empty(rows, dtype=np.int64)
    place_of_row_R[order_R] = places_R
    return Rows(
        row_of_place_N=torch.from_numpy(row_of_place_N).to(chosen_TK.device),
        place_of_row_R=torch.from_numpy(place_of_row_R).to(chosen_TK.device),
        ends_E=torch.from_numpy(np.cumsum(sizes_E).astype(np.int32)).to(chosen_TK.device),
        experts=experts,
        padded_to=most if padded else 0,
    )


def gapless_fits(w_EAB: Tensor) -> bool:
    """Whether PyTorch's grouped product takes such matrices: no float64, strides in multiples of 16 bytes."""
    return w_EAB.dtype != torch.float64 and all(size * w_EAB.element_size() % 16 == 0 for size in w_EAB.shape[1:])


def _times(x_NA: Tensor, w_EAB: Tensor, rows: Rows) -> Tensor:
    """Each row times its expert's matrix."""
    if rows.padded_to:
        return torch.bmm(x_NA.view(rows.experts, rows.padded_to, -1), w_EAB).view(x_NA.shape[0], -1)
    return torch.nn.functional.grouped_mm(x_NA, w_EAB, offs=rows.ends_E)


def _outer(x_NA: Tensor, dy_NB: Tensor, rows: Rows) -> Tensor:
    """Each expert's weight gradient: its rows transposed times their gradients; 0 for an expert nobody chose."""
    if rows.padded_to:
        shape = (rows.experts, rows.padded_to, -1)
        return torch.bmm(x_NA.view(shape).transpose(1, 2), dy_NB.view(shape))
    return torch.nn.functional.grouped_mm(x_NA.t(), dy_NB, offs=rows.ends_E)


class _SparseFeedForward(torch.autograd.Function):
    """Gathers only: every scatter is a gather by the inverse order, so results do not depend on its sequence."""

    @staticmethod
    def forward(
        ctx: Any, x_TD: Tensor, w_in_EDH: Tensor, w_out_EFD: Tensor, chosen_TK: Tensor, gates_TK: Tensor, rows: Rows
    ) -> Tensor:
        tokens, top_k = chosen_TK.shape
        token_of_place_N = rows.row_of_place_N // top_k
        if rows.padded_to:
            token_of_place_N.clamp_(max=tokens - 1)  # padding reads any token: its output is never gathered
        x_ND = x_TD.index_select(0, token_of_place_N)
        h_NH = _times(x_ND, w_in_EDH, rows)
        a_NF, silu_NF = activate(h_NH)
        y_ND = _times(a_NF, w_out_EFD, rows)
        y_TKD = y_ND.index_select(0, rows.place_of_row_R).view(tokens, top_k, -1)
        ctx.save_for_backward(w_in_EDH, w_out_EFD, gates_TK, x_ND, h_NH, silu_NF, y_TKD)
        ctx.rows = rows
        return torch.bmm(gates_TK.unsqueeze(1), y_TKD).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        w_in_EDH, w_out_EFD, gates_TK, x_ND, h_NH, silu_NF, y_TKD = ctx.saved_tensors
        rows: Rows = ctx.rows
        (tokens, top_k), width = gates_TK.shape, dy_TD.shape[1]
        dgates_TK = torch.bmm(y_TKD, dy_TD.unsqueeze(2)).squeeze(2)
        dy_RD = dy_TD.new_empty(tokens * top_k + 1, width)  # the last row is padding's gradient
        dy_RD[-1].zero_()
        torch.mul(dy_TD.unsqueeze(1), gates_TK.unsqueeze(2), out=dy_RD[:-1].view(tokens, top_k, width))
        dy_ND = dy_RD.index_select(0, rows.row_of_place_N)
        da_NF = _times(dy_ND, w_out_EFD.transpose(1, 2), rows)
        dh_NH, a_NF = activate_backward(h_NH, silu_NF, da_NF)
        dw_out_EFD = _outer(a_NF, dy_ND, rows)
        dw_in_EDH = _outer(x_ND, dh_NH, rows)
        dx_ND = _times(dh_NH, w_in_EDH.transpose(1, 2), rows)
        dx_TD = dx_ND.index_select(0, rows.place_of_row_R).view(tokens, top_k, width).sum(1)
        return dx_TD, dw_in_EDH, dw_out_EFD, None, dgates_TK, None


class _Native(torch.autograd.Function):
    """The whole layer in one compiled pass over the experts, forward and backward."""

    @staticmethod
    def forward(
        ctx: Any, x_TD: Tensor, w_in_EDH: Tensor, w_out_EFD: Tensor, chosen_TK: Tensor, gates_TK: Tensor
    ) -> Tensor:
        (tokens, top_k), (experts, width, d_model) = chosen_TK.shape, w_out_EFD.shape
        rows = tokens * top_k
        order_R, place_R = (torch.empty(rows, dtype=torch.int32) for _ in range(2))
        ends_E = torch.empty(experts, dtype=torch.int32)
        native.module.sort_rows(
            chosen_TK.data_ptr(), rows, experts, order_R.data_ptr(), place_R.data_ptr(), ends_E.data_ptr()
        )
        h_RH, y_RD = x_TD.new_empty(rows, 2 * width), x_TD.new_empty(rows, d_model)
        y_TD = torch.empty_like(x_TD)
        native.module.sparse_forward(
            x_TD.data_ptr(), w_in_EDH.data_ptr(), w_out_EFD.data_ptr(), order_R.data_ptr(), place_R.data_ptr(),
            ends_E.data_ptr(), gates_TK.data_ptr(), h_RH.data_ptr(), y_RD.data_ptr(), y_TD.data_ptr(), tokens, top_k,
            experts, d_model, width, torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(x_TD, w_in_EDH, w_out_EFD, order_R, place_R, ends_E, gates_TK, h_RH, y_RD)
        return y_TD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x_TD, w_in_EDH, w_out_EFD, order_R, place_R, ends_E, gates_TK, h_RH, y_RD = ctx.saved_tensors
        (tokens, top_k), (experts, width, d_model) = gates_TK.shape, w_out_EFD.shape
        dy_TD = dy_TD.contiguous()
        dx_TD, dw_in_EDH, dw_out_EFD = torch.empty_like(x_TD), torch.empty_like(w_in_EDH), torch.empty_like(w_out_EFD)
        dgates_TK, dx_RD = torch.empty_like(gates_TK), torch.empty_like(y_RD)
        native.module.sparse_backward(
            dy_TD.data_ptr(), x_TD.data_ptr(), w_in_EDH.data_ptr(), w_out_EFD.data_ptr(), order_R.data_ptr(),
            place_R.data_ptr(), ends_E.data_ptr(), gates_TK.data_ptr(), h_RH.data_ptr(), y_RD.data_ptr(),
            dx_TD.data_ptr(), dw_in_EDH.data_ptr(), dw_out_EFD.data_ptr(), dgates_TK.data_ptr(), dx_RD.data_ptr(),
            tokens, top_k, experts, d_model, width, torch.get_num_threads(),
        )  # fmt: skip
        increment_version(h_RH)  # it holds its gradient now: a second backward pass is an error
        return dx_TD, dw_in_EDH, dw_out_EFD, None, dgates_TK


def compiled(x_TD: Tensor, w_in_EDH: Tensor, w_out_EFD: Tensor, chosen_TK: Tensor, gates_TK: Tensor) -> Tensor:
    """The compiled pass; gapless where it is not installed, or for another dtype or device."""
    if not native.usable(x_TD, w_in_EDH, w_out_EFD, gates_TK):
        return gapless(x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK)
    tensors = [tensor.contiguous() for tensor in (x_TD, w_in_EDH, w_out_EFD, chosen_TK.long(), gates_TK)]
    return _Native.apply(*tensors)  # type: ignore[return-value]


def gapless(x_TD: Tensor, w_in_EDH: Tensor, w_out_EFD: Tensor, chosen_TK: Tensor, gates_TK: Tensor) -> Tensor:
    """Rows without gaps and PyTorch's grouped products; padded where those do not take the sizes."""
    if not (gapless_fits(w_in_EDH) and gapless_fits(w_out_EFD)):
        return padded(x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK)
    rows = sort_rows(chosen_TK, w_in_EDH.shape[0], padded=False)
    return _SparseFeedForward.apply(x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK.to(x_TD.dtype), rows)  # type: ignore[return-value]


def padded(x_TD: Tensor, w_in_EDH: Tensor, w_out_EFD: Tensor, chosen_TK: Tensor, gates_TK: Tensor) -> Tensor:
    """Every expert's rows padded to the fullest one's, and batched products; any size, any dtype."""
    rows = sort_rows(chosen_TK, w_in_EDH.shape[0], padded=True)
    return _SparseFeedForward.apply(x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK.to(x_TD.dtype), rows)  # type: ignore[return-value]


def torch_grouped(x_TD: Tensor, w_in_EDH: Tensor, w_out_EFD: Tensor, chosen_TK: Tensor, gates_TK: Tensor) -> Tensor:
    """PyTorch's grouped products between a sort and its inverse, differentiated by autograd."""
    tokens, top_k = chosen_TK.shape
    chosen_R = chosen_TK.reshape(-1)
    order_R = torch.argsort(chosen_R, stable=True)
    ends_E = torch.bincount(chosen_R, minlength=w_in_EDH.shape[0]).cumsum(0).to(torch.int32)
    h_RH = torch.nn.functional.grouped_mm(x_TD[order_R // top_k], w_in_EDH, offs=ends_E)
    y_RD = torch.nn.functional.grouped_mm(activate_plain(h_RH), w_out_EFD, offs=ends_E)
    y_TKD = y_RD[torch.argsort(order_R)].view(tokens, top_k, -1)
    return (y_TKD * gates_TK.unsqueeze(2).to(y_TKD.dtype)).sum(1)


def activate_plain(h_NH: Tensor) -> Tensor:
    """`activate` as autograd follows it."""
    gate_NF, up_NF = h_NH.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate_NF) * up_NF


KERNELS: dict[str, Callable[..., Tensor]] = {
    "reference": reference,
    "compiled": compiled,
    "gapless": gapless,
    "padded": padded,
    "torch_grouped": torch_grouped,
}


def sparse_feed_forward(
    x_TD: Tensor,
    w_in_EDH: Tensor,
    w_out_EFD: Tensor,
    chosen_TK: Tensor,
    gates_TK: Tensor,
    kernel: str = "auto",
) -> Tensor:
    """Routed SwiGLU experts, dropless: every token visits the experts it chose, whatever their load.

    Shapes: x [T, D], w_in [E, D, 2F] (gate half first), w_out [E, F, D], chosen [T, K] integers, gates [T, K] to [T, D]
    Raises: UserError for an unknown kernel.
    """
    name = kernel if kernel != "auto" else ("torch_grouped" if x_TD.is_cuda else "compiled")
    if name not in KERNELS:
        raise UserError(f"kernel: no kernel named '{kernel}'", hint=nearest(kernel, KERNELS))
    return KERNELS[name](x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK)
