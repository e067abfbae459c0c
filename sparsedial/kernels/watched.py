"""Whether a computation is followed operation by operation: then no kernel may hide from PyTorch what it does."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack


def watched(tensor: Tensor) -> bool:
    """Whether a compiler traces it, PyTorch's FLOP counter counts it, or tensors have no values, as this one."""
    if torch.compiler.is_compiling() or isinstance(tensor, FakeTensor):
        return True
    return torch._C._len_torch_dispatch_stack() > 0 and any(map(_is_pytorchs, _get_current_dispatch_mode_stack()))


def unreadable(tensor: Tensor) -> bool:
    """Whether no check may read its values: it would wait for a GPU, and what is traced has none."""
    return tensor.is_cuda or watched(tensor)


def _is_pytorchs(mode: object) -> bool:
    return type(mode).__module__.startswith("torch.")
