"""Tile sizes of the Triton kernels: a table by compute capability and size, so that nothing is tried inside a step."""

from __future__ import annotations

from dataclasses import dataclass

SMALL_FLOPS = 1e10  # of a layer, forward and backward; below, launches take longer than arithmetic


@dataclass(frozen=True)
class Tiles:
    """Sizes of a kernel's blocks: rows, columns, depth; and how a GPU runs them."""

    rows: int = 64
    columns: int = 64
    depth: int = 32
    warps: int = 4
    stages: int = 3


ROW_KERNELS = ("up", "down", "down_backward", "up_backward")  # all use the same blocks of rows
Choice = dict[str, Tiles]  # of each of ROW_KERNELS, and "outer"


def alike(tiles: Tiles) -> Choice:
    """The same for every kernel."""
    return dict.fromkeys((*ROW_KERNELS, "outer"), tiles)


SMALL = alike(Tiles())  # for small layers, and on GPUs that the table does not name
NARROW, WIDE = Tiles(128, 128, 64, 8, 3), Tiles(128, 256, 64, 8, 3)
# By major compute capability, chosen by the compiler's figures (benchmarks/gpu_resources.py).
LARGE: dict[int, Choice] = {
    9: {"up": NARROW, "down": WIDE, "down_backward": NARROW, "up_backward": WIDE, "outer": WIDE},
}


def tiles_for(capability: tuple[int, int], flops: float) -> Choice:
    """The tiles of a layer of so many FLOPs, forward and backward, on a GPU of this compute capability."""
    return SMALL if flops < SMALL_FLOPS else LARGE.get(capability[0], SMALL)
