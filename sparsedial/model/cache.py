"""What later positions need of earlier ones, in slots; each slot holds one sequence, of its own length.

B rows of a call, S new positions, P all positions so far, G key-value heads, L layers, R new positions of all rows that
are not padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsedial.errors import UserError
from sparsedial.shape.shape import Shape
from sparsedial.units import dtype_name


class Cache:
    """Keys and values, or the latent and its rotated key, of each layer, for as many sequences as it has slots.

    Shapes: two of [L, slots, G, length, channels]; for latent attention G is 1
    """

    def __init__(self, shape: Shape, slots: int, length: int, device: torch.device, dtype: torch.dtype) -> None:
        self.shape, self.slots, self.length = shape, slots, length
        heads = 1 if shape.latent_attention else shape.kv_heads
        widths = (
            (shape.kv_lora_rank, shape.rope_head_dim) if shape.latent_attention else (shape.head_dim, shape.head_dim)
        )
        self.parts = [
            torch.zeros(shape.layers + shape.mtp_layers, slots, heads, length, width, device=device, dtype=dtype)
            for width in widths
        ]
        self.filled = [0] * slots  # positions of each slot

    def check(self, shape: Shape, norm_D: Tensor) -> None:
        """Check that it was made for a model of this shape, and for the type of what its norms give.

        Raises: UserError where it was not.
        """
        part = self.parts[0]
        if self.shape != shape:
            raise UserError("model: the cache was made for another shape")
        if (part.dtype, part.device) != (norm_D.dtype, norm_D.device):
            raise UserError(
                f"model: the cache is {dtype_name(part.dtype)} on {part.device},"
                f" but the weights are {dtype_name(norm_D.dtype)} on {norm_D.device}"
            )

    def rows(self, rows: int, new: int, slots: Sequence[int] | None, lengths: Sequence[int] | None) -> Rows:
        """Where the rows of a call continue. By default row n continues slot n, and all of its ids are new positions.

        Raises: UserError for slots or lengths that fit neither the ids nor the cache, or more positions than it has.
        """
        if slots is None:
            if rows != self.slots:
                raise UserError(f"model: the cache has {self.slots} slots, but the ids are of {rows} sequences")
            slots = range(rows)
        elif not rows or len(slots) != rows or len(set(slots)) < rows or min(slots) < 0 or max(slots) >= self.slots:
            raise UserError(f"model: slots={list(slots)} are not {rows} different ones of 0..{self.slots - 1}")
        if lengths is None:
            lengths = [new] * rows
        elif len(lengths) != rows or min(lengths) < 1 or max(lengths) != new:
            raise UserError(f"model: lengths={list(lengths)} do not fit {rows} rows whose longest is {new} ids")
        found = Rows(slots, [self.filled[slot] for slot in slots], lengths)
        if found.end > self.length:
            raise UserError(f"model: {found.end} positions are more than the cache's {self.length}")
        return found

    def fill(self, rows: Rows) -> None:
        """Count the new positions of a call as filled."""
        for slot, start, length in zip(rows.slots, rows.starts, rows.lengths, strict=True):
            self.filled[slot] = start + length

    def shrink(self, slot: int, filled: int) -> None:
        """Forget a slot's positions from `filled` on."""
        self.filled[slot] = min(filled, self.filled[slot])

    def free(self, slot: int) -> None:
        """Forget a slot's sequence; another one may begin there."""
        self.filled[slot] = 0

    def wipe(self, slot: int) -> None:
        """Forget a slot's sequence and its values, where they may be no numbers.

        A longer row that is read beside the next one has positions there that the next one does not see: their weight
        is 0, and 0 times what is no number is none.
        """
        for part in self.parts:
            part[:, slot, :, : self.filled[slot]] = 0
        self.free(slot)

    def copy(self, source: int, target: int, positions: int | None = None) -> None:
        """Copy the sequence of one slot to another, or so many of its first positions."""
        filled = self.filled[source] if positions is None else min(positions, self.filled[source])
        for part in self.parts:
            part[:, target, :, :filled] = part[:, source, :, :filled]
        self.filled[target] = filled


@dataclass(frozen=True)
class Rows:
    """The slots that the rows of a call continue, each from which position and by how many."""

    slots: Sequence[int]
    starts: Sequence[int]
    lengths: Sequence[int]

    @property
    def start(self) -> int:
        """The largest first new position of the rows."""
        return max(self.starts)

    @property
    def end(self) -> int:
        """One past the last new position of any row."""
        return max(map(sum, zip(self.starts, self.lengths, strict=True)))

    @property
    def alike(self) -> bool:
        """Whether all rows are at the same position, without padding, in consecutive slots."""
        first = self.slots[0]
        in_order = list(self.slots) == list(range(first, first + len(self.slots)))
        return in_order and len(set(self.starts)) == 1 and len(set(self.lengths)) == 1

    def apart(self, device: torch.device) -> Apart:
        """The indices that read and store rows which are not alike."""
        slots_B, starts_B, lengths_B = (torch.tensor(list(each)) for each in (self.slots, self.starts, self.lengths))
        columns_S = torch.arange(max(self.lengths))
        positions_BS = starts_B[:, None] + torch.minimum(columns_S, lengths_B[:, None] - 1)
        rows_R, columns_R = (columns_S < lengths_B[:, None]).nonzero(as_tuple=True)
        indices = positions_BS, slots_B, rows_R, columns_R, slots_B[rows_R], positions_BS[rows_R, columns_R]
        return Apart(*(index.to(device) for index in indices))


@dataclass(frozen=True)
class Apart:
    """Rows that are not alike, as indices. Padding is on the right and repeats its row's last position."""

    positions_BS: Tensor
    slots_B: Tensor
    rows_R: Tensor  # of each new position that is not padding: its row and column among the ids
    columns_R: Tensor
    slots_R: Tensor  # and its slot and position in the cache
    positions_R: Tensor


@dataclass(frozen=True)
class Place:
    """The positions of a call's new ids in their sequences, and where a cache stores what later ids need of them."""

    rotary: tuple[Tensor, Tensor]  # of the new positions: [S, C], or [B, 1, S, C] where rows are not alike
    end: int  # one past the last new position of any row
    start: int = 0  # the first new position; the largest one where rows are not alike
    cache: Cache | None = None
    first_slot: int = 0  # rows lie in this slot and those after it
    apart: Apart | None = None

    def mask(self, new: int, window: int, device: torch.device) -> Tensor | None:
        """Which positions each new one sees; None where all rows begin and the mask is plainly causal.

        Shapes: [B or 1, 1, S, P] of bool
        """
        if self.start == 0 and not 0 < window < self.end:
            return None
        apart = self.apart
        positions = torch.arange(self.start, self.end, device=device) if apart is None else apart.positions_BS
        rows, columns_P = positions.unsqueeze(-1), torch.arange(self.end, device=device)
        mask = columns_P <= rows
        if window:
            mask &= columns_P > rows - window
        return mask.view(-1, 1, new, self.end)

    def extend(self, layer: int, first_BGSC: Tensor, second_BGSC: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's values at the new positions; returns those at all so far. Shapes: two of [B, G, P, C]"""
        if self.cache is None:
            return first_BGSC, second_BGSC
        first, second = (part[layer] for part in self.cache.parts)
        return self._extend(first, first_BGSC), self._extend(second, second_BGSC)

    def _extend(self, part: Tensor, new_BGSC: Tensor) -> Tensor:
        if self.apart is None:
            kept = part[self.first_slot : self.first_slot + len(new_BGSC), :, : self.end]
            kept[:, :, self.start :] = new_BGSC
            return kept if self.start else new_BGSC
        at = self.apart
        part[at.slots_R, :, at.positions_R] = new_BGSC[at.rows_R, :, at.columns_R].to(part.dtype)
        return part[at.slots_B, :, : self.end] if self.start else new_BGSC
