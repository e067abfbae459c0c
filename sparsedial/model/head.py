"""The model's end: from the stream to logits, and to the cross-entropy of the next token.

B sequences, S positions, T tokens (B*S), D d_model, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sparsedial.kernels import layers, narrow, native
from sparsedial.kernels.head import loss_in_pieces, losses_in_pieces
from sparsedial.kernels.watched import watched
from sparsedial.model.attention import rms_norm


@dataclass(frozen=True)
class Head:
    """The table of the un-embedding, and what belongs to it."""

    table_VD: Tensor
    eps: float  # of the norm before it
    cap: float  # above 0: logits are cap * tanh(logits / cap)

    def logits(self, x_BSD: Tensor, norm_D: Tensor) -> Tensor:
        """Logits of a stream, normed first. Shapes: to [B, S, V]"""
        logits_BSV = narrow.logits(rms_norm(x_BSD, norm_D, self.eps), self.table_VD)
        return self.cap * torch.tanh(logits_BSV / self.cap) if self.cap else logits_BSV

    def entropy(self, x_BSD: Tensor, norm_D: Tensor, target_BS: Tensor, weight_BS: Tensor | None = None) -> Tensor:
        """The mean cross-entropy; with weights the weighted mean, and 0 where all of them are 0."""
        if self._compiles(x_BSD):
            return layers.head_loss(x_BSD, norm_D, self.table_VD, target_BS, self.eps, weight_BS)
        if in_pieces(x_BSD):
            weight_T = None if weight_BS is None else weight_BS.flatten()
            return loss_in_pieces(*self._given(x_BSD, norm_D, target_BS), weight_T, self.cap)
        logits_TV = self.logits(x_BSD, norm_D).flatten(0, 1).float()
        if weight_BS is None:
            return functional.cross_entropy(logits_TV, target_BS.flatten())
        weight_T = weight_BS.flatten()
        each_T = functional.cross_entropy(logits_TV, target_BS.flatten(), reduction="none")
        return (weight_T * each_T).sum() / weight_T.sum().clamp(min=torch.finfo(weight_T.dtype).tiny)

    @torch.no_grad()
    def losses(self, x_BSD: Tensor, norm_D: Tensor, target_BS: Tensor) -> Tensor:
        """The cross-entropy of each position, nats. Shapes: to [B, S]"""
        if self._compiles(x_BSD):
            return layers.head_losses(x_BSD, norm_D, self.table_VD, target_BS, self.eps)
        if in_pieces(x_BSD):
            return losses_in_pieces(*self._given(x_BSD, norm_D, target_BS), self.cap).view(target_BS.shape)
        logits_TV = self.logits(x_BSD, norm_D).flatten(0, 1).float()
        return functional.cross_entropy(logits_TV, target_BS.flatten(), reduction="none").view(target_BS.shape)

    def _compiles(self, x_BSD: Tensor) -> bool:
        """Whether the loss is one compiled call."""
        return native.usable(x_BSD, self.table_VD) and not self.cap

    def _given(self, x_BSD: Tensor, norm_D: Tensor, target_BS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a loss in pieces takes: the normed stream by token, the table, the targets by token."""
        return rms_norm(x_BSD, norm_D, self.eps).flatten(0, 1), self.table_VD, target_BS.flatten()


def in_pieces(x_BSD: Tensor) -> bool:
    """Whether the loss goes piece by piece through PyTorch's products, so that the logits of a batch never exist.

    A compiler makes its own pieces of a loss that it can follow.
    """
    return x_BSD.is_cuda and not watched(x_BSD)
