"""Tile sizes of the Triton kernels: a table by compute capability and size, so that nothing is tried inside a step."""

from __future__ import annotations

from dataclasses import dataclass

import torch

SMALL_FLOPS = 1e10  # of a layer, forward and backward; below, launches take longer than arithmetic
# That a block may ask for. Source: CUDA C++ programming guide, technical specifications per compute capability
SHARED_BYTES = {(8, 0): 166912, (8, 6): 101376, (8, 9): 101376, (9, 0): 232448, (10, 0): 232448, (12, 0): 101376}


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
HALF, NARROW, WIDE = Tiles(128, 64, 64, 8, 3), Tiles(128, 128, 64, 8, 3), Tiles(128, 256, 64, 8, 3)
ON_WARPS = {**alike(NARROW), "up": HALF}  # products by single warps, whose registers hold the sums
# By major compute capability, chosen by the compiler's figures (benchmarks/gpu_resources.py) so that no card of that
# kind spills registers or lacks shared memory; but 9's `up` spills 8 bytes where it reads weights without descriptors.
LARGE: dict[int, Choice] = {
    8: ON_WARPS,
    9: {"up": NARROW, "down": WIDE, "down_backward": NARROW, "up_backward": WIDE, "outer": WIDE},
    10: {"up": NARROW, "down": WIDE, "down_backward": NARROW, "up_backward": WIDE, "outer": WIDE},
    12: ON_WARPS,
}
NARROWER = {WIDE: NARROW, NARROW: HALF}
SINGLE_HALF, SINGLE = Tiles(128, 64, 32, 8, 3), Tiles(128, 128, 32, 8, 3)
LARGE_FLOAT32 = {**alike(SINGLE), "up": SINGLE_HALF, "down_backward": SINGLE_HALF}  # of every row above
Capability = tuple[int, int]


def capability_of(device: torch.device) -> Capability | None:
    """The compute capability; None for a GPU of another maker than NVIDIA, whose numbers mean something else."""
    return None if torch.version.hip else torch.cuda.get_device_capability(device)


def candidates(tiles: Tiles) -> tuple[Tiles, ...]:
    """What may be faster than a table's tiles on one card or another: those, and the next narrower ones."""
    return (tiles, NARROWER[tiles]) if tiles in NARROWER else (tiles,)


def tiles_for(capability: Capability | None, flops: float, dtype: torch.dtype = torch.bfloat16) -> Choice:
    """The tiles of a layer of so many FLOPs, forward and backward, on such a GPU."""
    if flops < SMALL_FLOPS or capability is None or capability[0] not in LARGE:
        return SMALL
    return LARGE_FLOAT32 if dtype == torch.float32 else LARGE[capability[0]]
