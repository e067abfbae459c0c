"""Sequences that begin alike in one row of ids: what they share is read once.

Each id has one before it; those on the way back to the first id are its sequence. S ids in a row, C rotary channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsedial.model.cache import Place


@dataclass(frozen=True)
class Branching(Place):
    """The positions of ids in their sequences, and which ids of the row each one sees."""

    sees_SS: Tensor | None = None  # of bool
    positions_S: Tensor | None = None

    def mask(self, new: int, window: int, device: torch.device) -> Tensor:
        """Which ids each one sees: its own sequence, within the window. Shapes: [1, 1, S, S] of bool"""
        assert self.sees_SS is not None
        assert self.positions_S is not None
        mask_SS = self.sees_SS
        if window:
            mask_SS = mask_SS & (self.positions_S > self.positions_S[:, None] - window)
        return mask_SS.view(1, 1, new, new)


def branching(place: Place, before: Sequence[int], positions: Sequence[int]) -> Branching:
    """The place of a row of ids, of which several sequences make one tree.

    `before` has the place of the id before each, -1 for none, and `positions` each one's position in its sequence.
    """
    cosine_SC, sine_SC = place.rotary
    positions_S = torch.tensor(positions, device=cosine_SC.device)
    sees_SS = torch.eye(len(before), dtype=torch.bool)
    for at, earlier in enumerate(before):
        if earlier >= 0:
            sees_SS[at] |= sees_SS[earlier]
    rotary = cosine_SC[positions_S], sine_SC[positions_S]
    return Branching(rotary=rotary, end=place.end, sees_SS=sees_SS.to(cosine_SC.device), positions_S=positions_S)
