"""Documents on both sides of each filter's threshold, to be read by people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from itertools import islice, zip_longest

import numpy as np

from sparsedial.selection.choosing import Choice
from sparsedial.selection.filters import CONTAMINATED, EQUAL_TO_TRAIN, EXACT, NEAR
from sparsedial.selection.pairs import MOST, Pair
from sparsedial.selection.sketch import plain_of
from sparsedial.selection.spans import REASON as SPANS
from sparsedial.text.reading import Reading
from sparsedial.text.splitting import Splitting

BEFORE, SHOWN = 20, 140  # words before the first difference, and in all


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """A document's name, and some of its words."""

    name: str
    split: str
    left_out_by: str | None  # a filter; None for one that stays
    begins: int  # the number of words before the first that is shown
    words: tuple[str, ...]
    in_all: int  # words of the document


@dataclass(frozen=True, kw_only=True)
class Example:
    """A document, and the one that it was compared with."""

    left_out: bool
    jaccard: float | None
    excerpts: tuple[Excerpt, ...]
    value: float | None = None  # that a rule measured, or a score


def examples(reading: Reading, splitting: Splitting, choice: Choice) -> Mapping[str, list[Example]]:
    """Examples of each filter by its name; the text is read once more for them.

    Raises: UserError where a file changed since it was read.
    """
    found = choice.duplicates
    pairs = {EQUAL_TO_TRAIN: [], EXACT: found.exact, NEAR: [*reversed(found.near.above), *found.near.below]}
    singles = dict.fromkeys((*_scored(splitting, choice, True), *_scored(splitting, choice, False)))
    nearest = dict(choice.quality.nearest) | ({SPANS: choice.spans.nearest} if choice.spans.nearest else {})
    measured = {name: [*near.broken, *near.stays] for name, near in nearest.items()}
    holding = tuple(islice(choice.contaminated.held_by, MOST))
    wanted = {number for each in pairs.values() for pair in each for number in (pair.document, pair.other)} | {
        *singles,
        *holding,
    }
    shown = _Shown(reading, splitting, choice, wanted | {one.document for each in measured.values() for one in each})
    by_filter = {name: list(map(shown.pair, each)) for name, each in pairs.items()}
    for name, near in nearest.items():
        by_filter[name] = [
            shown.single(one.document, left_out=not near.rule.keeps(one.value), value=one.value)
            for one in measured[name]
        ]
    if choice.contaminated.judged:
        by_filter[CONTAMINATED] = [
            shown.single(number, left_out=number in choice.removed, value=None) for number in holding
        ]
    if choice.score is not None:
        by_filter[choice.score] = [
            shown.single(number, left_out=number in choice.removed, value=choice.losses.get(number))
            for number in singles
        ]
    return by_filter


class _Shown:
    """The words of some documents, as they are shown."""

    def __init__(self, reading: Reading, splitting: Splitting, choice: Choice, wanted: Set[int]) -> None:
        self._splitting, self._choice = splitting, choice
        self._held = {
            number: (document.id, plain_of(document.text).decode().split())
            for number, document in zip(range(max(wanted, default=-1) + 1), reading.again(), strict=False)
            if number in wanted
        }

    def pair(self, pair: Pair) -> Example:
        """A document beside the one that it was compared with."""
        left_out = pair.jaccard >= self._choice.duplicates.near.threshold
        return Example(left_out=left_out, jaccard=pair.jaccard, excerpts=self._excerpts(pair.other, pair.document))

    def single(self, number: int, left_out: bool, value: float | None) -> Example:
        """A document alone, with what was measured of it."""
        return Example(left_out=left_out, jaccard=None, excerpts=self._excerpts(number), value=value)

    def _excerpts(self, *numbers: int) -> tuple[Excerpt, ...]:
        begin = max(0, _first_difference([self._held[number][1] for number in numbers]) - BEFORE)
        return tuple(
            Excerpt(
                name=self._held[number][0],
                split=self._splitting.splits[number] or "",
                left_out_by=self._choice.reason(number),
                begins=begin,
                words=tuple(self._held[number][1][begin : begin + SHOWN]),
                in_all=len(self._held[number][1]),
            )
            for number in numbers
        )


def _scored(splitting: Splitting, choice: Choice, left_out: bool) -> Iterator[int]:
    """Train documents that were left out by their score, or that stay; none where no share was asked for."""
    wanted = choice.score if left_out else None
    judged = [
        number
        for number, split in enumerate(splitting.splits)
        if split == "train" and choice.score and choice.reason(number) in (None, choice.score)
    ]
    return islice((number for number in _by_edge(judged, choice) if choice.reason(number) == wanted), MOST)


def _by_edge(judged: list[int], choice: Choice) -> list[int]:
    """The documents whose losses are nearest to where documents begin to be left out first; without losses as given."""
    if not choice.losses:
        return judged
    order = sorted(judged, key=choice.losses.__getitem__)
    stays = [choice.reason(number) is None for number in order]
    edges = [at for at in range(1, len(order)) if stays[at] != stays[at - 1]]
    places, ends = np.arange(len(order)), np.array([-len(order), *edges, 2 * len(order)])
    after = np.searchsorted(ends, places, side="right")
    distances = np.minimum(ends[after] - places - 1, places - ends[after - 1])
    return [order[at] for at in np.argsort(distances, kind="stable")]


def _first_difference(texts: list[list[str]]) -> int:
    """The first word in which two texts differ; 0 for a single text, and for equal ones."""
    if len(texts) == 1:
        return 0
    differing = (place for place, (one, other) in enumerate(zip_longest(*texts)) if one != other)
    return next(differing, 0)
