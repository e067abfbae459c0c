"""The sparse feed-forward layer in PyTorch's own operations: the readable twin that defines it, and grouped products.

T tokens, K chosen experts, R = T*K routed rows, E experts, D d_model, F d_expert, H = 2F (gate half first, then up).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def swiglu(x_TD: Tensor, w_in_DH: Tensor, w_out_FD: Tensor) -> Tensor:
    """(silu(x W_gate) * x W_up) W_out. Source: Shazeer 2020 (arXiv 2002.05202)"""
    return activate(x_TD @ w_in_DH) @ w_out_FD


def activate(h_TH: Tensor) -> Tensor:
    """silu(gate) * up from their concatenation over the last axis."""
    gate_TF, up_TF = h_TH.chunk(2, dim=-1)
    return functional.silu(gate_TF) * up_TF


def visited(top_k_T: Tensor, top_k: int) -> Tensor:
    """Which of its choices each token visits: its first `top_k_T`. Shapes: to [T, K] of bool"""
    return torch.arange(top_k, device=top_k_T.device) < top_k_T.unsqueeze(1)


def by_expert(chosen_R: Tensor, experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows sorted by expert: their experts, their numbers, and where each expert's rows end; one past the last expert
    stands for none. (A count by `bincount` would wait for a GPU.)

    Shapes: to [R], [R], [E]
    """
    sorted_R, order_R = torch.sort(chosen_R, stable=True)
    numbers_E = torch.arange(experts, device=chosen_R.device, dtype=chosen_R.dtype)
    return sorted_R, order_R, torch.searchsorted(sorted_R, numbers_E, right=True)


def reference(
    x_TD: Tensor,
    w_in_EDH: Tensor,
    w_out_EFD: Tensor,
    chosen_TK: Tensor,
    gates_TK: Tensor,
    top_k_T: Tensor | None = None,
) -> Tensor:
    """The readable twin that defines the layer: y_t = sum_k gates[t, k] * expert[chosen[t, k]](x_t), k < top_k[t].

    PyTorch's FLOP counter sees all of it.
    """
    y_TD = torch.zeros_like(x_TD)
    if top_k_T is not None:
        chosen_TK = chosen_TK.masked_fill(~visited(top_k_T, chosen_TK.shape[1]), len(w_in_EDH))  # no expert
    for expert, (w_in_DH, w_out_FD) in enumerate(zip(w_in_EDH.unbind(0), w_out_EFD.unbind(0), strict=True)):
        token_n, choice_n = (chosen_TK == expert).nonzero(as_tuple=True)
        y_nD = swiglu(x_TD[token_n], w_in_DH, w_out_FD)
        y_TD = y_TD.index_add(0, token_n, y_nD * gates_TK[token_n, choice_n, None].to(y_nD.dtype))
    return y_TD


def reference_gradients(
    dy_TD: Tensor,
    x_TD: Tensor,
    w_in_EDH: Tensor,
    w_out_EFD: Tensor,
    chosen_TK: Tensor,
    gates_TK: Tensor,
    top_k_T: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of `reference`, written out: of x, w_in, w_out and gates."""
    dx_TD, dw_in_EDH, dw_out_EFD, dgates_TK = map(torch.zeros_like, (x_TD, w_in_EDH, w_out_EFD, gates_TK))
    if top_k_T is not None:
        chosen_TK = chosen_TK.masked_fill(~visited(top_k_T, chosen_TK.shape[1]), len(w_in_EDH))  # no expert
    for expert, (w_in_DH, w_out_FD) in enumerate(zip(w_in_EDH.unbind(0), w_out_EFD.unbind(0), strict=True)):
        token_n, choice_n = (chosen_TK == expert).nonzero(as_tuple=True)
        x_nD, dy_nD, gate_n1 = x_TD[token_n], dy_TD[token_n], gates_TK[token_n, choice_n, None].to(x_TD.dtype)
        gate_nF, up_nF = (x_nD @ w_in_DH).chunk(2, dim=-1)
        sigmoid_nF = torch.sigmoid(gate_nF)
        a_nF, da_nF = gate_nF * sigmoid_nF * up_nF, dy_nD @ w_out_FD.T
        dgates_TK[token_n, choice_n] = (a_nF * da_nF).sum(1).to(gates_TK.dtype)
        da_nF = da_nF * gate_n1
        dgate_nF = da_nF * up_nF * sigmoid_nF * (1 + gate_nF * (1 - sigmoid_nF))
        dh_nH = torch.cat([dgate_nF, da_nF * gate_nF * sigmoid_nF], 1)
        dw_out_EFD[expert] = (a_nF * gate_n1).T @ dy_nD
        dw_in_EDH[expert] = x_nD.T @ dh_nH
        dx_TD.index_add_(0, token_n, dh_nH @ w_in_DH.T)
    return dx_TD, dw_in_EDH, dw_out_EFD, dgates_TK


def torch_grouped(
    x_TD: Tensor,
    w_in_EDH: Tensor,
    w_out_EFD: Tensor,
    chosen_TK: Tensor,
    gates_TK: Tensor,
    top_k_T: Tensor | None = None,
) -> Tensor:
    """A sort, PyTorch's grouped products and the inverse sort; the reference where the products refuse the sizes."""
    if not (_grouped_fits(w_in_EDH) and _grouped_fits(w_out_EFD)):
        return reference(x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK, top_k_T)
    (tokens, top_k), experts = chosen_TK.shape, len(w_in_EDH)
    idle_TK = None if top_k_T is None else ~visited(top_k_T, top_k)
    chosen_R = (chosen_TK if idle_TK is None else chosen_TK.masked_fill(idle_TK, experts)).reshape(-1)
    sorted_R, order_R, ends_E = by_expert(chosen_R, experts)
    ends_E = ends_E.to(torch.int32)
    x_RD = x_TD[order_R // top_k]
    if idle_TK is not None:  # products leave rows after the last expert's uninitialised, and their gradients too
        x_RD = x_RD.masked_fill((sorted_R == experts).unsqueeze(1), 0)
    h_RH = functional.grouped_mm(x_RD, w_in_EDH, offs=ends_E)
    y_RD = functional.grouped_mm(activate(h_RH), w_out_EFD, offs=ends_E)
    y_TKD = y_RD[torch.argsort(order_R)].view(tokens, top_k, -1)
    if idle_TK is not None:
        y_TKD = y_TKD.masked_fill(idle_TK.unsqueeze(2), 0)
    return (y_TKD * gates_TK.unsqueeze(2).to(y_TKD.dtype)).sum(1)


def _grouped_fits(w_EAB: Tensor) -> bool:
    """Whether PyTorch's grouped product takes such matrices: no float64, strides in multiples of 16 bytes."""
    return w_EAB.dtype != torch.float64 and all(size * w_EAB.element_size() % 16 == 0 for size in w_EAB.shape[1:])
