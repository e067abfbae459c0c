"""Token ids that a model is given: whether they are ids, and ids that it has."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsedial.errors import UserError
from sparsedial.kernels.watched import unreadable
from sparsedial.units import dtype_name


def check_type(ids_BS: Tensor) -> None:
    """Refuse what is no tensor of integers of two axes.

    Raises: UserError.
    """
    if not isinstance(ids_BS, Tensor) or ids_BS.dim() != 2:
        given = f"of {ids_BS.dim()} dimensions" if isinstance(ids_BS, Tensor) else f"a {type(ids_BS).__name__}"
        raise UserError(f"model: token ids must be a tensor [sequences, positions], not {given}")
    if ids_BS.dtype not in (torch.int64, torch.int32):
        raise UserError(f"model: token ids must be int64 or int32, not {dtype_name(ids_BS.dtype)}")


def check_range(ids: Tensor, vocab_size: int) -> None:
    """Refuse ids beyond the vocabulary; on a GPU, and where they have no values, nothing is checked.

    Raises: UserError.
    """
    if unreadable(ids):
        return
    least, most = ids.aminmax()
    if int(least) < 0 or int(most) >= vocab_size:
        raise UserError(f"model: a token id lies outside 0..{vocab_size - 1}")
