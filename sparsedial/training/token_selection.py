"""Token selection: a step's loss counts the positions whose own loss is highest above a reference model's.

B sequences, S positions, T all positions of a step (B*S).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsedial.text.reference_losses import ReferenceLosses


@dataclass(frozen=True, kw_only=True)
class Selecting:
    """The share of a step's positions that counts, and the losses that it is chosen by."""

    share: float
    losses: ReferenceLosses


def by_excess(reference_BS: Tensor, share: float) -> Callable[[Tensor], Tensor]:
    """From the loss of each position to its weight: 1 for the share with the highest excess loss, 0 for the others.

    The excess loss is the model's own loss, as it is in this step, less the reference's. All positions are read
    whatever their weight. Each rank chooses among its own positions.

    Shapes: [B, S]; the function takes [B, S] and gives [B, S] of float32
    Source: RHO-1, Lin et al. 2024 (arXiv 2404.07965), section 2.2, equations 3 and 4
    """

    def weigh(losses_BS: Tensor) -> Tensor:
        excess_T = (losses_BS.float() - reference_BS).flatten()
        count = max(1, round(share * len(excess_T)))
        chosen = excess_T.topk(count, sorted=False).indices
        return torch.zeros_like(excess_T).index_fill_(0, chosen, 1.0).view_as(losses_BS)

    return weigh
