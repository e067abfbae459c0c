"""How the Triton kernels are launched; counting and tests put something else in the place of a launch."""

from __future__ import annotations

import contextlib
import contextvars
import importlib.util
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
Do = Callable[[Any, tuple[int, ...], tuple[Any, ...], dict[str, Any]], object]  # with a kernel, its grid and arguments


def _run(kernel: Any, grid: tuple[int, ...], arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    kernel[grid](*arguments, **named)


def _nothing(kernel: Any, grid: tuple[int, ...], arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    """In place of a launch."""


_do: Do = _run


@cache
def available() -> bool:
    """Whether Triton is installed, as it is with PyTorch's builds for GPUs."""
    return importlib.util.find_spec("triton") is not None


def launch(
    kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int = 4, stages: int = 3, **constants: Any
) -> None:
    """Run a kernel on the device of its tensors, which must be the current one."""
    options = {} if INTERPRETED else {"num_warps": warps, "num_stages": stages}
    _do(kernel, grid, arguments, {**constants, **options})


@contextlib.contextmanager
def _instead(do: Do) -> Iterator[None]:
    global _do
    before, _do = _do, do
    try:
        yield
    finally:
        _do = before


def left_out() -> contextlib.AbstractContextManager[None]:
    """Within it nothing is launched: outputs have their sizes and no values."""
    return _instead(_nothing)


def launches() -> bool:
    """Whether anything comes of a launch: where not, tensors may have no addresses to prepare it with."""
    return _do is not _nothing


@contextlib.contextmanager
def compiled_ahead(threads: int) -> Iterator[None]:
    """Within it kernels are compiled, so many at once, and not run: outputs have no values. At its end all are ready.

    Without it each is compiled at its first launch, and all others wait. Raises the compiler's first error.
    """
    from triton import AsyncCompileMode  # pyright: ignore[reportMissingImports]
    from triton.runtime import driver  # pyright: ignore[reportMissingImports]

    with ThreadPoolExecutor(threads) as pool:
        with AsyncCompileMode(pool, ignore_errors=True) as mode:  # with an error the mode would not end
            entered = contextvars.copy_context()  # of this thread; on a GPU backward passes run in another one
            with _instead(lambda kernel, grid, given, named: entered.run(kernel.warmup, *given, grid=grid, **named)):
                yield
        kernels = [future.result() for future in mode.future_kernels.values()]
        # Triton 3.6 has a C compiler make a launcher for each kernel's arguments; later versions have one for all
        list(pool.map(lambda kernel: cast(Any, driver.active).launcher_cls(kernel.src, kernel.metadata), kernels))


def on(tensor: Tensor) -> Any:
    """The tensor's device as the current one, which Triton launches on."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else torch.autograd.profiler.record_function("triton")


def blocks_in(size: int, of: int) -> int:
    """How many blocks `of` values each hold so many."""
    return -(-size // of)


def power_of_two(least: int) -> int:
    """The smallest power of two that is not below a number; a block has such a size."""
    return 1 << (least - 1).bit_length()
