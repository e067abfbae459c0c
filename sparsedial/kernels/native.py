"""The compiled kernels, where this install has them; `csrc/kernels.h` lists them.

They take addresses of contiguous float32 tensors on a CPU; whoever calls them checks sizes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

try:
    from sparsedial.kernels import _native  # pyright: ignore[reportAttributeAccessIssue]
except ImportError:  # installed without a C compiler
    _native = None

module: Any = _native


def kind(device: str) -> str:
    """Which kernels runs on a device use: "compiled" or "torch"; the two round differently."""
    return "compiled" if module is not None and device == "cpu" else "torch"


def usable(*tensors: Tensor) -> bool:
    """Whether the compiled kernels are here and take these tensors."""
    return module is not None and all(
        tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in tensors
    )
