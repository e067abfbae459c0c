"""Products with weights as they are held, in float32 or bfloat16, where all else is in float32.

Those in bfloat16 are widened, then multiplied. The compiled kernels widen them as they read them, so in float32 they
never lie in memory; other code reads wide copies.

K values in, N out, D d_model, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sparsedial.kernels import native

ROWS = range(12, 301)  # of a product in float32, for which the compiled kernel is faster than PyTorch's: LOG.md


def is_narrow(x: Tensor, weight: Tensor) -> bool:
    """Whether a weight is held in bfloat16 and multiplied in float32."""
    return weight.dtype == torch.bfloat16 and x.dtype == torch.float32


def widened(x: Tensor, weight: Tensor) -> Tensor:
    """A weight in the type of what it is multiplied by."""
    return weight.float() if is_narrow(x, weight) else weight


def product(x: Tensor, w_KN: Tensor) -> Tensor:
    """x @ w. Shapes: x [..., K] to [..., N]"""
    half, tokens = is_narrow(x, w_KN), x.shape[:-1].numel()
    if (half or tokens in ROWS) and _read_as_they_are(x, w_KN):
        (k, n), y = w_KN.shape, x.new_empty(*x.shape[:-1], w_KN.shape[1])
        threads = torch.get_num_threads()
        native.module.weights_product(x=x, w=w_KN, y=y, tokens=tokens, k=k, n=n, half=half, threads=threads)
        return y
    return x @ widened(x, w_KN)


def logits(x: Tensor, table_VD: Tensor) -> Tensor:
    """x @ table.T. Shapes: x [..., D] to [..., V]"""
    if is_narrow(x, table_VD) and _read_as_they_are(x, table_VD):
        (words, d_model), y = table_VD.shape, x.new_empty(*x.shape[:-1], len(table_VD))
        native.module.half_logits(
            normed=x, table=table_VD, logits=y, tokens=x.shape[:-1].numel(), d=d_model, words=words,
            threads=torch.get_num_threads(),
        )  # fmt: skip
        return y
    return functional.linear(x, widened(x, table_VD))


def as_taken(*weights: Tensor | None) -> tuple[Tensor | None, ...]:
    """The weights of a layer as its kernel takes them: all in bfloat16 where nothing learns, else all in float32."""
    given = [weight for weight in weights if weight is not None]
    if all(weight.dtype == torch.bfloat16 for weight in given) and not torch.is_grad_enabled():
        return weights
    return tuple(None if weight is None else weight.float() for weight in weights)


def _read_as_they_are(x: Tensor, weight: Tensor) -> bool:
    known = is_narrow(x, weight) or weight.dtype == x.dtype
    return known and not torch.is_grad_enabled() and native.usable(x) and weight.is_contiguous()
