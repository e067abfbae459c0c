"""How the process keeps memory that tensors gave back."""

from __future__ import annotations

import contextlib
import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 2**30


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks instead of returning each tensor's pages to the system.

    Measured on 2 Zen 3 cores: a training step of the study's shapes takes a tenth to a quarter less time, since
    every tensor above 128 kB was otherwise mapped and zeroed anew. Does nothing where the C library is another one.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(None)
            library.mallopt(M_MMAP_THRESHOLD, LARGEST)
            library.mallopt(M_TRIM_THRESHOLD, LARGEST)
