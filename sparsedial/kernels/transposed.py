"""Copies of matrices from one layout into the other: files hold them [out, in], and the model multiplies by [in, out].

PyTorch reads or writes a value at a time there, each from a cache line of its own; the compiled kernel goes by blocks.

N rows, K columns.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from sparsedial.kernels import native

ROWS = 1024  # that change their type at once; this limits the memory


def copy_values(to_NK: Tensor, from_NK: Tensor) -> None:
    """As `to_NK.copy_(from_NK)`, of weights without a gradient."""
    if from_NK.dim() == 2 and to_NK.stride(-1) == 1 and from_NK.stride(0) == 1:
        to_NK, from_NK = to_NK.t(), from_NK.t()
    if not _across(to_NK, from_NK):
        to_NK.copy_(from_NK)
        return
    for rows_RK, values_RK in zip(to_NK.split(ROWS), from_NK.split(ROWS), strict=True):
        values_RK = values_RK.to(to_NK.dtype)
        native.module.transpose(
            values=values_RK, to=rows_RK, rows=len(values_RK), columns=values_RK.shape[1],
            values_row=values_RK.stride(0), to_row=rows_RK.stride(1), half=to_NK.dtype.itemsize == 2,
            threads=torch.get_num_threads(),
        )  # fmt: skip
    if not to_NK.is_inference():
        increment_version(to_NK)


def _across(to_NK: Tensor, from_NK: Tensor) -> bool:
    """Whether both are matrices on the CPU of which one lies by rows and the other by columns."""
    return (
        native.module is not None
        and to_NK.dim() == 2
        and to_NK.shape == from_NK.shape
        and to_NK.dtype.itemsize in (2, 4)
        and to_NK.device.type == from_NK.device.type == "cpu"
        and (to_NK.stride(0), from_NK.stride(1)) == (1, 1)
    )
