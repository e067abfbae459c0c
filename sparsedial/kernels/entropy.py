"""Cross-entropy of logits: T tokens, V words."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import increment_version
from torch.nn import functional

from sparsedial.kernels import native


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_TV: Tensor, target_T: Tensor) -> Tensor:
        logits_TV, target_T = logits_TV.contiguous(), target_T.contiguous()
        normaliser_T, loss = logits_TV.new_empty(len(logits_TV)), logits_TV.new_empty(())
        native.module.entropy_forward(
            logits_TV.data_ptr(), target_T.data_ptr(), normaliser_T.data_ptr(), loss.data_ptr(), *logits_TV.shape,
            torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(logits_TV, target_T, normaliser_T)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        logits_TV, target_T, normaliser_T = ctx.saved_tensors
        native.module.entropy_backward(
            dloss.data_ptr(), logits_TV.data_ptr(), target_T.data_ptr(), normaliser_T.data_ptr(),
            logits_TV.data_ptr(), *logits_TV.shape, torch.get_num_threads(),
        )  # fmt: skip
        increment_version(logits_TV)  # they hold their gradient now
        return logits_TV.detach(), None


def cross_entropy(logits_TV: Tensor, target_T: Tensor) -> Tensor:
    """Mean over tokens, nats; equals `functional.cross_entropy` of fp32 logits, which its backward pass may overwrite.

    Shapes: logits [T, V], target [T] of int64 to []
    Raises: IndexError for a target outside the vocabulary.
    """
    if not native.usable(logits_TV) or target_T.numel() == 0:
        return functional.cross_entropy(logits_TV.float(), target_T)
    if int(target_T.min()) < 0 or int(target_T.max()) >= logits_TV.shape[1]:
        raise IndexError(f"a target lies outside 0..{logits_TV.shape[1] - 1}")
    return _CrossEntropy.apply(logits_TV, target_T)  # type: ignore[return-value]
