"""The pairs of documents that are nearest to a threshold, on both sides of it."""

from __future__ import annotations

from dataclasses import dataclass, field

MOST = 5  # of each side


@dataclass(frozen=True)
class Pair:
    """A document and the one that it was compared with, by their numbers in the corpus."""

    document: int
    other: int
    jaccard: float


@dataclass
class Pairs:
    """The pairs that are nearest to a threshold; of equally near ones the first."""

    threshold: float
    above: list[Pair] = field(default_factory=list)
    below: list[Pair] = field(default_factory=list)

    def add(self, pair: Pair) -> None:
        """Keep a pair if it is among the nearest."""
        side = self.above if pair.jaccard >= self.threshold else self.below
        side.append(pair)
        side.sort(key=lambda held: abs(held.jaccard - self.threshold))
        del side[MOST:]
