"""How many runs of a study train at once, and what that costs: as many as are asked for, as far as a GPU holds them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from sparsedial.errors import UserError
from sparsedial.machine.card import CardMemory
from sparsedial.machine.memory import step_bytes
from sparsedial.machine.profile import Profile
from sparsedial.shape.counts import total_parameters
from sparsedial.shape.ladder import RUNGS
from sparsedial.shape.shape import Shape
from sparsedial.sweep.layout import Layout
from sparsedial.units import human_bytes


@dataclass(frozen=True, kw_only=True)
class Room:
    """A GPU's memory before the first run, and the bytes of an activation there."""

    card: CardMemory
    value_bytes: int

    def bytes_of(self, shapes: Iterable[Shape], batch: int, context: int) -> float:
        """The counted bytes of a step of the largest of some shapes."""
        return max(_step_bytes(shape, batch, context, self.value_bytes) for shape in shapes)

    def runs_of(self, layout: Layout) -> int:
        """How many runs of a layout's largest cell fit at once; at least one."""
        cells = map(layout.shape, layout.cells)
        return max(1, int(self.card.free // self.bytes_of(cells, layout.batch, layout.ladder.context)))

    def require(self, layout: Layout) -> None:
        """Raises: UserError with the bytes where the largest cell of a grid that was laid earlier no longer fits."""
        needed = self.bytes_of(map(layout.shape, layout.cells), layout.batch, layout.ladder.context)
        if needed > self.card.free:
            raise UserError(
                f"a step of the largest model of this grid needs {human_bytes(needed)}, and {self.card.words}",
                hint="wait until the card is free, or begin a study in another folder",
            )

    def most_parameters(self, layout: Layout) -> float | None:
        """The total parameters below those of every model of its ladder that does not fit; None where all fit."""
        ladder = [layout.ladder.shape(rung, experts) for rung in RUNGS for experts in layout.experts]
        too_large = [
            total_parameters(shape)
            for shape in ladder
            if self.bytes_of([shape], layout.batch, layout.ladder.context) > self.card.free
        ]
        return min(too_large) - 1.0 if too_large else None

    def together(self, shapes: Iterable[Shape], batch: int, context: int) -> list[Shape]:
        """The smallest of some shapes, as many as fit beside one another."""
        kept, held = list[Shape](), 0.0
        for shape in sorted(shapes, key=lambda one: self.bytes_of([one], batch, context)):
            held += self.bytes_of([shape], batch, context)
            if held <= self.card.free or not kept:
                kept.append(shape)
        return kept


@cache
def _step_bytes(shape: Shape, batch: int, context: int, value_bytes: int) -> float:
    return float(step_bytes(shape, batch, context, value_bytes).total)


@dataclass(frozen=True, kw_only=True)
class AtOnce:
    """The numbers of runs at once that a study may choose from."""

    numbers: Sequence[int]
    room: Room | None = None  # on a GPU

    def fitting(self, layout: Layout) -> list[int]:
        """The numbers for this layout: none above what the GPU holds of its largest cell."""
        if self.room is None:
            return list(self.numbers)
        most = self.room.runs_of(layout)
        return sorted({min(number, most) for number in self.numbers})


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """Seconds of one run alone on the machine."""

    step: float
    training: float
    beside: float  # its start, its scores and its record

    @property
    def seconds(self) -> float:
        """All of them."""
        return self.training + self.beside

    def shared(self, profile: Profile, workers: int) -> float:
        """What it adds to the time of many runs, so many of them at once."""
        return self.training / profile.speedup(workers, self.step) + self.beside / profile.host_speedup(workers)
