"""Which rank owns which weights: it alone holds their moments and moves them, so that each does an even share.

Source: stage 2 of Rajbhandari et al. 2020 (arXiv 1910.02054); Muon's matrices stay whole, as in Liu et al. 2025
(arXiv 2502.16982), section 2.3
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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
    """Rows of a weight, along its first axis, that one rank owns; all of them where the weight is not divided."""

    weight: int  # its number among the model's parameters
    first: int
    last: int  # the row after its last
    owner: int

    def of(self, weight: Tensor) -> Tensor:
        """The part as a tensor: the weight itself, or a view of it."""
        return weight if (self.first, self.last) == (0, len(weight)) else weight.detach()[self.first : self.last]


@dataclass(frozen=True)
class _Cost:
    """What one weight's step takes."""

    weight: int
    rows: int
    divisible: bool
    products: int  # Muon's multiplications; 0 under AdamW, whose work goes with its bytes
    moment_bytes: int


def owners(model: Transformer, recipe: Recipe, count: int) -> list[Part]:
    """The parts of all weights in the model's order, with their owners among `count` ranks; on each the same.

    A large weight is divided evenly among all ranks: by rows under AdamW, by experts under Muon. The others go one by
    one, the costliest first, to the rank that has least: of Muon's products, then of bytes of moments.
    """
    costs = [
        _cost(number, name, parameter, model, recipe)
        for number, (name, parameter) in enumerate(model.named_parameters())
    ]
    products = sum(cost.products for cost in costs) / (FINE * count)
    moment_bytes = sum(cost.moment_bytes for cost in costs) / (FINE * count)
    loads = [_Load(rank) for rank in range(count)]
    whole = list[_Cost]()
    for cost in costs:
        large = cost.products > products if cost.products else cost.moment_bytes > moment_bytes
        if large and cost.divisible and cost.rows >= count:
            for owner, first, last in _divided(cost, count):
                loads[owner].add(cost, first, last)
        else:
            whole.append(cost)
    for cost in sorted(whole, key=lambda cost: (cost.products, cost.moment_bytes), reverse=True):
        min(loads, key=lambda load: load.before(cost)).add(cost, 0, cost.rows)
    parts = (part for load in loads for part in load.parts)
    return sorted(parts, key=lambda part: (part.weight, part.first))


@dataclass
class _Load:
    """What a rank has been given so far."""

    rank: int
    products: float = 0.0
    moment_bytes: float = 0.0
    parts: list[Part] = field(default_factory=list[Part])

    def add(self, cost: _Cost, first: int, last: int) -> None:
        share = (last - first) / cost.rows
        self.products += share * cost.products
        self.moment_bytes += share * cost.moment_bytes
        self.parts.append(Part(cost.weight, first, last, self.rank))

    def before(self, cost: _Cost) -> tuple[float, float]:
        """By what the rank for a weight is chosen, the least first."""
        products, moment_bytes = self.products, self.moment_bytes
        return (products, moment_bytes) if cost.products else (moment_bytes, products)


def _cost(number: int, name: str, parameter: Tensor, model: Transformer, recipe: Recipe) -> _Cost:
    rows, values = len(parameter), parameter.numel()
    if by_muon(name, parameter, recipe):
        products = multiplications(parameter.shape, widths_of(name, parameter, model.shape))
        return _Cost(number, rows, parameter.dim() > 2, products, MUON_BYTES * values)
    return _Cost(number, rows, parameter.dim() >= 2, 0, ADAMW_BYTES * values)


def _divided(cost: _Cost, count: int) -> Iterator[tuple[int, int, int]]:
    """Each rank with its first row and the one after its last: as many as the others', or one more.

    Those with one more are others for the next weight.
    """
    lengths = [cost.rows // count + (place < cost.rows % count) for place in range(count)]
    for place, (first, last) in enumerate(pairwise(accumulate(lengths, initial=0))):
        yield (place + cost.weight) % count, first, last


def owned_by(index: int, parts: Sequence[Part]) -> dict[int, Part]:
    """A rank's parts by the number of their weight; it has at most one of each."""
    return {part.weight: part for part in parts if part.owner == index}
