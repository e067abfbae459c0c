"""The sparse feed-forward layer: rows go to their experts and come back weighted.

A token visits all K experts that it chose, or with `top_k_T` only the first `top_k_T` of them.
T tokens, K chosen experts, R = T*K routed rows, E experts, D d_model, F d_expert, H = 2F (gate half first, then up).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sparsedial.errors import UserError, nearest
from sparsedial.kernels import native, triton_launch
from sparsedial.kernels.compiled import Compiled
from sparsedial.kernels.experts import experts
from sparsedial.kernels.reference import reference, torch_grouped
from sparsedial.kernels.watched import unreadable, watched


def compiled(
    x_TD: Tensor,
    w_in_EDH: Tensor,
    w_out_EFD: Tensor,
    chosen_TK: Tensor,
    gates_TK: Tensor,
    top_k_T: Tensor | None = None,
) -> Tensor:
    """Rows sorted by expert and one compiled pass over the experts.

    It falls back to `torch_grouped` where the kernels are not installed, and for other dtypes and devices.
    """
    tensors = [tensor.contiguous() for tensor in (x_TD, w_in_EDH, w_out_EFD, chosen_TK.long(), gates_TK)]
    if not native.usable(*tensors[:3], tensors[4]):
        return torch_grouped(x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK, top_k_T)
    top_k_T = None if top_k_T is None else top_k_T.long().contiguous()
    return Compiled.apply(*tensors, top_k_T)  # type: ignore[return-value]


def triton(
    x_TD: Tensor,
    w_in_EDH: Tensor,
    w_out_EFD: Tensor,
    chosen_TK: Tensor,
    gates_TK: Tensor,
    top_k_T: Tensor | None = None,
) -> Tensor:
    """Fused Triton kernels, on a GPU.

    Raises: UserError where Triton is not installed.
    """
    try:
        from sparsedial.kernels.triton_sparse import triton_fused
    except ModuleNotFoundError as error:
        raise UserError("kernel: Triton is not installed", hint="PyTorch's builds for GPUs include it") from error
    return triton_fused(x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK, top_k_T)


def fastest(
    x_TD: Tensor,
    w_in_EDH: Tensor,
    w_out_EFD: Tensor,
    chosen_TK: Tensor,
    gates_TK: Tensor,
    top_k_T: Tensor | None = None,
) -> Tensor:
    """The compiled pass on a CPU; on a GPU Triton, or PyTorch's grouped products where it is not installed.

    Where the computation is traced or counted it is one operation, whichever kernel runs in it.
    """
    if watched(x_TD):
        return experts(x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK, top_k_T)
    on_gpu = triton if triton_launch.available() else torch_grouped
    return (on_gpu if x_TD.is_cuda else compiled)(x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK, top_k_T)


KERNELS: dict[str, Callable[..., Tensor]] = {
    "reference": reference,
    "compiled": compiled,
    "torch_grouped": torch_grouped,
    "triton": triton,
    "auto": fastest,
}


def sparse_feed_forward(
    x_TD: Tensor,
    w_in_EDH: Tensor,
    w_out_EFD: Tensor,
    chosen_TK: Tensor,
    gates_TK: Tensor,
    kernel: str = "auto",
    top_k_T: Tensor | None = None,
) -> Tensor:
    """Routed SwiGLU experts, dropless: every token visits the experts it chose, whatever their load.

    With `top_k_T` a token visits only its first `top_k_T` choices; the others cost nothing.

    Shapes: x [T, D], w_in [E, D, 2F] (gate half first), w_out [E, F, D], chosen [T, K] integers, gates [T, K], top_k
        [T] integers to [T, D]
    Raises: UserError for an unknown kernel, tensors that do not fit each other, or a chosen expert that does not exist.
    """
    if kernel not in KERNELS:
        raise UserError(f"kernel: no kernel named '{kernel}'", hint=nearest(kernel, KERNELS))
    _check(x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK)
    if top_k_T is not None and (top_k_T.shape != x_TD.shape[:1] or top_k_T.is_floating_point()):
        raise UserError(f"kernel: top_k {list(top_k_T.shape)} is not an integer for each of {len(x_TD)} tokens")
    if not len(x_TD):
        return reference(x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK)
    return KERNELS[kernel](x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK, top_k_T)


def _check(x_TD: Tensor, w_in_EDH: Tensor, w_out_EFD: Tensor, chosen_TK: Tensor, gates_TK: Tensor) -> None:
    """Fast kernels read by address, so they would read beyond the ends of tensors that do not fit."""
    tensors = {"x": x_TD, "w_in": w_in_EDH, "w_out": w_out_EFD, "chosen": chosen_TK, "gates": gates_TK}
    sizes = [list(tensor.shape) for tensor in tensors.values()]
    fit = [len(size) for size in sizes] == [2, 3, 3, 2, 2]
    if fit:
        (tokens, d_model), (experts, width, _), top_k = x_TD.shape, w_out_EFD.shape, chosen_TK.shape[1]
        routed = [tokens, top_k]
        fit = sizes[1:] == [[experts, d_model, 2 * width], [experts, width, d_model], routed, routed]
    if not fit:
        given = ", ".join(f"{name} {size}" for name, size in zip(tensors, sizes, strict=True))
        raise UserError(
            f"kernel: sizes do not fit each other: {given}",
            hint="x [T, D], w_in [E, D, 2F], w_out [E, F, D], chosen and gates [T, K]",
        )
    if unreadable(chosen_TK) or not chosen_TK.numel():
        return
    least, most = chosen_TK.aminmax()
    if int(least) < 0 or int(most) >= len(w_in_EDH):
        raise UserError(f"kernel: a chosen expert lies outside 0..{len(w_in_EDH) - 1}")
