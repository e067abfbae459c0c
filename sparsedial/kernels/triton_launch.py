"""How the Triton kernels are launched; counting and tests put something else in the place of a launch."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_launches = True


@cache
def available() -> bool:
    """Whether Triton is installed, as it is with PyTorch's builds for GPUs."""
    return importlib.util.find_spec("triton") is not None


def launch(
    kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int = 4, stages: int = 3, **constants: Any
) -> None:
    """Run a kernel on the device of its tensors, which must be the current one."""
    if not _launches:
        return
    options = {} if INTERPRETED else {"num_warps": warps, "num_stages": stages}
    kernel[grid](*arguments, **constants, **options)


@contextlib.contextmanager
def left_out() -> Iterator[None]:
    """Within it nothing is launched: outputs have their sizes and no values."""
    global _launches
    before, _launches = _launches, False
    try:
        yield
    finally:
        _launches = before


def on(tensor: Tensor) -> Any:
    """The tensor's device as the current one, which Triton launches on."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else torch.autograd.profiler.record_function("triton")


def blocks_in(size: int, of: int) -> int:
    """How many blocks `of` values each hold so many."""
    return -(-size // of)


def power_of_two(least: int) -> int:
    """The smallest power of two that is not below a number; a block has such a size."""
    return 1 << (least - 1).bit_length()
