"""What stays on of a model: one kind of value for every part that can be turned off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import polars

from sparsedial.model.stream import NamedTensor
from sparsedial.pruning.methods import Ask
from sparsedial.records.prune import KeptParts, SearchStep
from sparsedial.shape.shape import Shape


class Kept(Protocol):
    """What stays on. A frozen value: it gives the smaller Shape, and the tensors of the smaller checkpoint."""

    def share(self, shape: Shape) -> float:
        """The share that stays of all that could have been turned off."""
        ...

    def shape(self, shape: Shape) -> Shape:
        """The model without what is off."""
        ...

    def stream(self, tensors: Iterable[NamedTensor]) -> Iterator[NamedTensor]:
        """The tensors of that model, from those of the whole one."""
        ...

    def parts(self, shape: Shape) -> KeptParts:
        """What stays, for the answer."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """What stays on, and why."""

    kept: Kept
    controls: tuple[Kept, ...]  # as much of the same part, drawn; none where the choice itself is drawn
    scores: polars.DataFrame  # a row for each thing that could have been turned off
    unscored: tuple[tuple[int, int], ...] = ()  # layer and expert that no calibration token reached
    notes: tuple[str, ...] = ()  # what the choice alone gives reason to say
    search: tuple[SearchStep, ...] | None = None  # the shares that were tried before this one was chosen


Chooser = Callable[[Ask], Choice]  # by what a calibration showed once, for every method and share of a part
ShareChooser = Callable[[float], Choice]  # the same for every share by one method


def every_layer(shape: Shape) -> tuple[int, ...]:
    """The layers of a model in which no layer is turned off."""
    return tuple(range(shape.layers))
