"""Lanes: answers whose settings differ in k alone are rows of one decoder. B answers, V vocabulary, L layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsedial.model.decoder import Decoder, Hear, prepare
from sparsedial.model.gates import Gates
from sparsedial.model.transformer import Transformer
from sparsedial.model.turned import at_setting, require_gates
from sparsedial.serving.scheduler import Piece
from sparsedial.serving.slots import Answer, Beginning
from sparsedial.shape.shape import Shape
from sparsedial.shape.turned import Turned, visits


@dataclass(frozen=True)
class Place:
    """The setting of a lane's model, and how many experts an answer of it visits in each layer where fewer."""

    lane: Turned
    visits: tuple[int, ...] | None


def place_of(setting: Turned, shape: Shape, gates: Gates | None) -> Place:
    """The lane of a setting of this Shape. Settings with a k above the model's own anywhere have one of their own.

    Raises: UserError for a setting that the model cannot have, or that needs gates where there are none.
    """
    turned, counts, own = setting.shape(shape), setting.counts(shape), Turned().counts(shape)
    if setting.neurons != 1:
        require_gates(setting, gates)
    more = any(counts[layer] > own[layer] for layer in setting.kept(shape) if layer in counts)
    lane = Turned(
        top_k=tuple(counts.values()) if more else (),
        top_p=None if turned.top_p == shape.top_p else turned.top_p,
        neurons=setting.neurons,
        skip=tuple(sorted(set(setting.skip))),
    )
    visited = visits(turned)
    return Place(lane, None if visited == visits(lane.shape(shape)) else visited)


class Lane:
    """A decoder at one setting, in whose slots answers are read and written."""

    def __init__(self, model: Transformer, setting: Turned, gates: Gates | None, slots: int, length: int) -> None:
        self.decoder = Decoder(prepare(at_setting(model, setting, gates)), slots, length)
        self._own = visits(self.decoder.model.shape)
        self._rows: list[tuple[int, ...] | None] = []
        self._top_k_LB: Tensor | None = None

    def begin(self, beginning: Beginning) -> None:
        """Take over what an answer has in common with what a slot holds."""
        cache = self.decoder.cache
        if beginning.slot == beginning.source:
            cache.shrink(beginning.slot, beginning.shared)
        else:
            cache.copy(beginning.source, beginning.slot, beginning.shared)

    def read(self, pieces: Sequence[Piece], hear: Hear | None = None) -> Tensor:
        """Read pieces of prompts; returns the logits after the last id of each. `hear` as for `Decoder.read`.

        Shapes: to [B, V]
        """
        answers = [piece.answer for piece in pieces]
        ids = [piece.answer.ids[piece.answer.read :][: piece.count] for piece in pieces]
        return self.decoder.read(ids, _slots(answers), self._visited(answers), hear)

    def step(self, answers: Sequence[Answer]) -> Tensor:
        """Read the last id of each answer; returns the logits in memory that the next step may overwrite.

        Shapes: to [B, V]
        """
        return self.decoder.step([answer.ids[-1] for answer in answers], _slots(answers), self._visited(answers))

    def wipe(self, slot: int) -> None:
        """Forget what a slot holds, which may be no numbers."""
        self.decoder.cache.wipe(slot)

    def keeps(self, slot: int) -> bool:
        """Whether a slot keeps what it holds; it is wiped where its last position, which sees the others, is no number.

        For an answer that is not stopped its logits show that.
        """
        last = self.decoder.cache.filled[slot] - 1
        sound = last < 0 or all(bool(part[:, slot, :, last].isfinite().all()) for part in self.decoder.cache.parts)
        if not sound:
            self.wipe(slot)
        return sound

    def _visited(self, answers: Sequence[Answer]) -> Tensor | None:
        """How many experts each answer visits, [L, B]; None where all visit those of the model."""
        rows = [answer.visits for answer in answers]
        if rows != self._rows:
            device = self.decoder.cache.parts[0].device
            counts = [row or self._own for row in rows]
            self._top_k_LB = torch.tensor(counts, device=device).t() if any(rows) else None
            self._rows = rows
        return self._top_k_LB


def _slots(answers: Sequence[Answer]) -> list[int]:
    return [answer.slot for answer in answers if answer.slot is not None]
