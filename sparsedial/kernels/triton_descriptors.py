"""Weights that a kernel reads through a tensor descriptor: from Hopper on one instruction then fetches a whole block,
without an address for each thread, which leaves registers for the sums.

E experts, A rows and B columns of an expert's matrix.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sparsedial.kernels.triton_tiles import Tiles, capability_of

LEAST_CAPABILITY = 9
LEAST_ROWS = 128  # of a block; below, making descriptors takes longer than they save
ALIGNMENT = 16  # bytes, of a matrix and of its rows. Source: CUDA driver API, cuTensorMapEncodeTiled


def readable(w_EAB: Tensor, tiles: Tiles, turned: bool) -> Any:
    """A descriptor of the weights' rows where the GPU has them and the sizes allow it, else the weights themselves.

    A block of it is [depth, columns], or where turned [columns, depth].
    """
    if tiles.rows < LEAST_ROWS or not _has_descriptors(w_EAB) or not fits(w_EAB, tiles, turned):
        return w_EAB
    from triton.tools.tensor_descriptor import TensorDescriptor  # pyright: ignore[reportMissingImports]

    block = [tiles.columns, tiles.depth] if turned else [tiles.depth, tiles.columns]
    return TensorDescriptor.from_tensor(w_EAB.view(-1, w_EAB.shape[2]), block)


def fits(w_EAB: Tensor, tiles: Tiles, turned: bool) -> bool:
    """Whether rows and start are aligned, and the depth is a whole number of blocks, so that none reaches beyond an
    expert's matrix. (Columns beyond it are read, and left out where results are written.)
    """
    depth = w_EAB.shape[2 if turned else 1]
    row_bytes = w_EAB.shape[2] * w_EAB.element_size()
    return depth % tiles.depth == 0 and row_bytes % ALIGNMENT == 0 and w_EAB.data_ptr() % ALIGNMENT == 0


def _has_descriptors(w_EAB: Tensor) -> bool:
    if not w_EAB.is_cuda:
        return False
    capability = capability_of(w_EAB.device)
    return capability is not None and capability[0] >= LEAST_CAPABILITY
