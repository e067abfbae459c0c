"""The sparse layer as an operation of PyTorch, so that compilers, exports and the FLOP counter see it as one.

Training calls the kernels themselves: on a CPU an operation takes 0.25 ms more.

T tokens, K chosen experts, E experts, D d_model, F d_expert, H = 2F (gate half first, then up).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from sparsedial.kernels import compiled, native, triton_launch
from sparsedial.kernels.reference import reference, reference_gradients

Given = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]  # x, w_in, w_out, chosen, gates, top_k


def experts(
    x_TD: Tensor, w_in_EDH: Tensor, w_out_EFD: Tensor, chosen_TK: Tensor, gates_TK: Tensor, top_k_T: Tensor | None
) -> Tensor:
    """The sparse layer by the fastest kernel, as one operation; equals `reference.reference`."""
    given = (x_TD, w_in_EDH.to(x_TD.dtype), w_out_EFD.to(x_TD.dtype), chosen_TK.long(), gates_TK)
    top_k_T = None if top_k_T is None else top_k_T.long().contiguous()
    return _forward_op(*(tensor.contiguous() for tensor in given), top_k_T)[0]


def _forward(*given: Any) -> list[Tensor]:
    """The layer, then what its backward pass needs."""
    x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK, top_k_T = given
    if _by_triton(x_TD):
        from sparsedial.kernels import triton_sparse

        kept, tiles = _Kept(), triton_sparse._tiles(x_TD, w_out_EFD, chosen_TK)
        y_TD = triton_sparse._Fused.forward(kept, x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK, top_k_T, tiles)
        return [y_TD, *kept.saved_tensors[4:]]  # the first four are given
    if native.computes(x_TD, w_in_EDH, w_out_EFD, gates_TK):
        return list(compiled.forward(*given))
    return [reference(*given)]


def _backward(dy_TD: Tensor, kept: Sequence[Tensor], *given: Any) -> list[Tensor]:
    """The gradients of x, w_in, w_out and gates."""
    x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK, top_k_T = given
    if _by_triton(x_TD):
        from sparsedial.kernels import triton_sparse

        context = _Kept((x_TD, w_in_EDH, w_out_EFD, gates_TK, *kept))
        context.tiles, context.all_visited = triton_sparse._tiles(x_TD, w_out_EFD, chosen_TK), top_k_T is None
        gradients = triton_sparse._Fused.backward(context, dy_TD)
        return [gradient for gradient in gradients if gradient is not None]
    if native.computes(x_TD, w_in_EDH, w_out_EFD, gates_TK):
        # the kernel writes over what it was given, and an operation must not
        return list(compiled.backward(dy_TD, x_TD, w_in_EDH, w_out_EFD, gates_TK, kept[0].clone()))
    return list(reference_gradients(dy_TD, *given))


class _Kept:
    """Stands for the context in which a kernel's forward pass leaves what its backward pass reads."""

    tiles: Any
    all_visited: bool

    def __init__(self, tensors: tuple[Tensor, ...] = ()) -> None:
        self.saved_tensors = tensors

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep them."""
        self.saved_tensors = tensors


def _by_triton(x_TD: Tensor) -> bool:
    return x_TD.is_cuda and triton_launch.available()


# PyTorch reads the types of an operation's arguments from its function, and knows no `Tensor | None`.
@torch.library.custom_op("sparsedial::experts", mutates_args=())
def _forward_op(
    x_TD: Tensor,
    w_in_EDH: Tensor,
    w_out_EFD: Tensor,
    chosen_TK: Tensor,
    gates_TK: Tensor,
    top_k_T: Optional[Tensor],  # noqa: UP045
) -> list[Tensor]:
    return _forward(x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK, top_k_T)


@torch.library.custom_op("sparsedial::experts_backward", mutates_args=())
def _backward_op(
    dy_TD: Tensor,
    kept: Sequence[Tensor],
    x_TD: Tensor,
    w_in_EDH: Tensor,
    w_out_EFD: Tensor,
    chosen_TK: Tensor,
    gates_TK: Tensor,
    top_k_T: Optional[Tensor],  # noqa: UP045
) -> list[Tensor]:
    return _backward(dy_TD, kept, x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK, top_k_T)


@_forward_op.register_fake
def _(*given: Any) -> list[Tensor]:
    """As many values without values."""
    x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK, _ = given
    if _by_triton(x_TD):
        with triton_launch.left_out():
            return _forward(*given)
    by_kernels = native.computes(x_TD, w_in_EDH, w_out_EFD, gates_TK)
    kept = [x_TD.new_empty(compiled.kept_values(w_out_EFD, chosen_TK))] if by_kernels else []
    return [torch.empty_like(x_TD), *kept]


@_backward_op.register_fake
def _(
    dy_TD: Tensor,
    kept: Sequence[Tensor],
    x_TD: Tensor,
    w_in_EDH: Tensor,
    w_out_EFD: Tensor,
    chosen_TK: Tensor,
    gates_TK: Tensor,
    top_k_T: Tensor | None,
) -> list[Tensor]:
    return [torch.empty_like(tensor) for tensor in (x_TD, w_in_EDH, w_out_EFD, gates_TK)]


def _keep(ctx: Any, inputs: Given, output: list[Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output[1:])


def _differentiate(ctx: Any, gradients: list[Tensor]) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    dx_TD, dw_in_EDH, dw_out_EFD, dgates_TK = _backward_op(gradients[0].contiguous(), list(saved[6:]), *saved[:6])
    return dx_TD, dw_in_EDH, dw_out_EFD, None, dgates_TK, None


_forward_op.register_autograd(_differentiate, setup_context=_keep)


@register_flop_formula(torch.ops.sparsedial.experts)
def _forward_flops(x: Any, w_in: Any, w_out: Any, chosen: Any, *rest: Any, out_shape: Any = None, **named: Any) -> int:
    """Two FLOPs a multiplication, for every choice: how many `top_k` leaves out no shape tells."""
    _, width, d_model = w_out
    return 6 * chosen[0] * chosen[1] * width * d_model


@register_flop_formula(torch.ops.sparsedial.experts_backward)
def _backward_flops(dy: Any, kept: Any, *given: Any, out_shape: Any = None, **named: Any) -> int:
    return 2 * _forward_flops(*given)
