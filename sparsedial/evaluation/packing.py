"""Rows of token ids as trees: a beginning that several rows have in common is read once.

Choices of one question share the question, and questions share their examples. Rows are sorted, so that those that
begin alike are neighbours, and put into packs of one model call each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sparsedial.model.beginnings import common

SIZES = (256, 512, 1024, 2048, 4096)  # ids of a pack


@dataclass(frozen=True)
class Pack:
    """Rows of ids as one tree."""

    ids: list[int] = field(default_factory=list)
    before: list[int] = field(default_factory=list)  # the place of the id before each; -1 for a first one
    positions: list[int] = field(default_factory=list)  # of each id in its row
    rows: dict[int, list[int]] = field(default_factory=dict)  # the places of each row's ids, by the row's number

    def add(self, number: int, row: Sequence[int], shared: list[int]) -> None:
        """Add a row whose first ids are those at the `shared` places."""
        places = list(shared)
        for position in range(len(shared), len(row)):
            self.before.append(places[-1] if places else -1)
            places.append(len(self.ids))
            self.ids.append(row[position])
            self.positions.append(position)
        self.rows[number] = places


def packs(rows: Sequence[Sequence[int]], most: int) -> Iterator[Pack]:
    """All rows in packs of at most `most` ids each; a longer row has one of its own."""
    pack, last, previous = Pack(), [], []
    for number in sorted(range(len(rows)), key=lambda number: tuple(rows[number])):
        row = rows[number]
        shared = last[: common(previous, row)]
        if pack.ids and len(pack.ids) + len(row) - len(shared) > most:
            yield pack
            pack, shared = Pack(), []
        pack.add(number, row, shared)
        last, previous = pack.rows[number], row
    if pack.ids:
        yield pack


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What reading costs, over the cost of one position's products with weights."""

    pair: float  # of one position that looks at another
    call: float = 0.0  # of a call of the model, whatever it reads


def best_size(rows: Sequence[Sequence[int]], most: int, costs: Costs) -> int | None:
    """The size of packs, at most `most`, that costs least to read; None where rows side by side cost no more.

    Those need no mask, and fewer calls where the packs are small.
    """

    def cost(size: int) -> float:
        return sum(ids + costs.pair * ids**2 + costs.call for ids in _ids_of_packs(rows, size))

    apart = sum(len(row) + costs.pair * len(row) ** 2 / 2 for row in rows)
    apart += costs.call * math.ceil(sum(map(len, rows)) / SIZES[-1])
    least = min([*(size for size in SIZES if size < most), min(most, SIZES[-1])], key=cost)
    return least if cost(least) < apart else None


def _ids_of_packs(rows: Sequence[Sequence[int]], most: int) -> list[int]:
    """How many ids each of the packs would have."""
    found, previous = [0], []
    for row in sorted(rows, key=tuple):
        shared = common(previous, row) if found[-1] else 0
        if found[-1] and found[-1] + len(row) - shared > most:
            found.append(0)
            shared = 0
        found[-1] += len(row) - shared
        previous = row
    return found
