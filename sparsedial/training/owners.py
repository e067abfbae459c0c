"""Which rank owns which weights: it alone holds their moments and moves them, so that each does an even share.

Source: stage 2 of Rajbhandari et al. 2020 (arXiv 1910.02054); Muon's matrices stay whole, as in Liu et al. 2025
(arXiv 2502.16982), section 2.3
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

from torch import Tensor

from sparsedial.model.transformer import Transformer
from sparsedial.records.recipe import Recipe
from sparsedial.training.muon import multiplications
from sparsedial.training.muon_matrices import by_muon, widths_of

FINE = 8  # a weight that costs more than this fraction of a rank's share is divided, if it can be
ADAMW_BYTES, MUON_BYTES = 8, 4  # of moments for each value of a weight


@dataclass(frozen=True)
class Part:
    """Values of a weight, one after the other, that one rank owns; all of them where the weight is not divided."""

    weight: int  # its number among the model's parameters
    first: int
    last: int  # the value after its last
    owner: int

    @property
    def values(self) -> int:
        """How many they are."""
        return self.last - self.first

    def of(self, weight: Tensor) -> Tensor:
        """The part as a tensor: the weight itself, or a view of it, in its shape where it is whole rows."""
        if self.values == weight.numel():
            return weight
        view, row = weight.detach().view(-1)[self.first : self.last], weight[0].numel()
        return view if self.first % row or self.last % row else view.view(-1, *weight.shape[1:])


@dataclass(frozen=True)
class _Cost:
    """What the step of one weight takes, or of a piece of it."""

    weight: int
    first: int  # of its values
    values: int
    unit: int  # values that stay together: a row under AdamW, an expert under Muon
    products: float  # Muon's multiplications; 0 under AdamW, whose work goes with its bytes

    @property
    def moment_bytes(self) -> int:
        """Those that it needs."""
        return (MUON_BYTES if self.products else ADAMW_BYTES) * self.values

    def pieces(self, count: int) -> Iterator[_Cost]:
        """So many pieces of as many units each, or one more; where there are fewer units, a piece each."""
        units = self.values // self.unit
        lengths = [units // count + (place < units % count) for place in range(min(count, units))]
        for first, last in pairwise(accumulate(lengths, initial=0)):
            share = (last - first) / units
            yield replace(
                self,
                first=first * self.unit,
                values=(last - first) * self.unit,
                products=share * self.products,
            )


def owners(model: Transformer, recipe: Recipe, count: int) -> list[Part]:
    """The parts of all weights in the model's order, with their owners among `count` ranks; on each the same.

    A large weight is divided evenly among all ranks: by rows under AdamW, by experts under Muon, one each where these
    are fewer than ranks. Then weights go one by one, the costliest first, to the rank that has least: of Muon's
    products, then of bytes of moments.
    """
    costs = [
        _cost(number, name, parameter, model, recipe)
        for number, (name, parameter) in enumerate(model.named_parameters())
    ]
    products = sum(cost.products for cost in costs) / (FINE * count)
    moment_bytes = sum(cost.moment_bytes for cost in costs) / (FINE * count)
    loads = [_Load(rank) for rank in range(count)]
    singly = list[_Cost]()
    for cost in costs:
        large = cost.products > products if cost.products else cost.moment_bytes > moment_bytes
        pieces = list(cost.pieces(count)) if large else [cost]
        if len(pieces) == count:
            for place, piece in enumerate(pieces):  # those with one unit more go to other ranks with each weight
                loads[(place + cost.weight) % count].add(piece)
        else:
            singly += pieces
    for cost in sorted(singly, key=lambda cost: (cost.products, cost.moment_bytes), reverse=True):
        min(loads, key=lambda load: load.before(cost)).add(cost)
    parts = (part for load in loads for part in load.parts.values())
    return sorted(parts, key=lambda part: (part.weight, part.first))


@dataclass
class _Load:
    """What a rank has been given so far."""

    rank: int
    products: float = 0.0
    moment_bytes: float = 0.0
    parts: dict[int, Part] = field(default_factory=dict[int, Part])  # by their weight: at most one of each

    def add(self, cost: _Cost) -> None:
        self.products += cost.products
        self.moment_bytes += cost.moment_bytes
        self.parts[cost.weight] = Part(cost.weight, cost.first, cost.first + cost.values, self.rank)

    def before(self, cost: _Cost) -> tuple[bool, float, float]:
        """By what the rank for a weight is chosen, the least first."""
        loads = (self.products, self.moment_bytes) if cost.products else (self.moment_bytes, self.products)
        return cost.weight in self.parts, *loads


def _cost(number: int, name: str, parameter: Tensor, model: Transformer, recipe: Recipe) -> _Cost:
    values = parameter.numel()
    if by_muon(name, parameter, recipe):
        products = multiplications(parameter.shape, widths_of(name, parameter, model.shape))
        return _Cost(number, 0, values, math.prod(parameter.shape[-2:]), products)
    return _Cost(number, 0, values, parameter.shape[-1], 0)


def owned_by(index: int, parts: Sequence[Part]) -> dict[int, Part]:
    """A rank's parts by the number of their weight; it has at most one of each."""
    return {part.weight: part for part in parts if part.owner == index}
