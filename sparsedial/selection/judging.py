"""Which train documents break a rule of quality, and the documents nearest to each threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sparsedial.selection.page import Page
from sparsedial.selection.pairs import MOST
from sparsedial.selection.quality import QUALITY_RULES
from sparsedial.text.reading import Reading


class Bound(Protocol):
    """A threshold, and which side of it stays."""

    @property
    def threshold(self) -> float:
        """The number that decides."""
        ...

    def keeps(self, value: float) -> bool:
        """Whether a document that measures this stays."""
        ...


@dataclass(frozen=True)
class Measured:
    """A document by its number in the corpus, and what a rule measured of it."""

    document: int
    value: float


@dataclass
class Nearest:
    """The documents that are nearest to a rule's threshold on both sides; of equally near ones the first."""

    rule: Bound
    stays: list[Measured] = field(default_factory=list)
    broken: list[Measured] = field(default_factory=list)

    def add(self, found: Measured) -> None:
        """Keep a document if it is among the nearest."""
        side = self.stays if self.rule.keeps(found.value) else self.broken
        if len(side) < MOST or self._distance(found) < self._distance(side[-1]):
            side.append(found)
            side.sort(key=self._distance)
            del side[MOST:]

    def _distance(self, found: Measured) -> float:
        return abs(found.value - self.rule.threshold)


@dataclass(frozen=True)
class Quality:
    """What rules say of the train documents; nothing where none were asked for."""

    nearest: Mapping[str, Nearest]  # by the name of each rule
    broken: Mapping[int, str]  # the first rule that a document breaks, by its number
    shares: Mapping[int, float]  # of the rules that a document keeps, by its number


def first_broken(text: bytes, families: Sequence[str]) -> str | None:
    """The first rule of these families that a document breaks."""
    page = Page(text.decode())
    rules = ((name, rule) for name, rule in QUALITY_RULES.items() if rule.family in families)
    return next((name for name, rule in rules if not rule.keeps(float(rule.of(page)))), None)


def judge_quality(reading: Reading, splits: Sequence[str | None], families: Sequence[str]) -> Quality:
    """Read the text once more, and measure each train document by all rules of these families.

    Raises: UserError where a file changed since it was read.
    """
    rules = {name: rule for name, rule in QUALITY_RULES.items() if rule.family in families}
    nearest = {name: Nearest(rule) for name, rule in rules.items()}
    broken: dict[int, str] = {}
    shares: dict[int, float] = {}
    documents = zip(reading.again(), splits, strict=True) if nearest else ()
    for number, (document, split) in enumerate(documents):
        if split != "train":
            continue
        page, failed = Page(document.text.decode()), []
        for name, found in nearest.items():
            value = float(rules[name].of(page))
            found.add(Measured(number, value))
            if not found.rule.keeps(value):
                failed.append(name)
        shares[number] = 1 - len(failed) / len(nearest)
        if failed:
            broken[number] = failed[0]
    return Quality(nearest=nearest, broken=broken, shares=shares)
