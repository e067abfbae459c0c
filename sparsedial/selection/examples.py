"""Documents on both sides of each filter's threshold, to be read by people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, zip_longest

from sparsedial.selection.choosing import Choice
from sparsedial.selection.filters import EQUAL_TO_TRAIN, EXACT, NEAR
from sparsedial.selection.pairs import MOST, Pair
from sparsedial.selection.sketch import words_of
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


def examples(reading: Reading, splitting: Splitting, choice: Choice) -> Mapping[str, list[Example]]:
    """Examples of each filter by its name; the text is read once more for them.

    Raises: UserError where a file changed since it was read.
    """
    found = choice.duplicates
    pairs = {EQUAL_TO_TRAIN: [], EXACT: found.exact, NEAR: [*reversed(found.near.above), *found.near.below]}
    singles = dict.fromkeys((*_scored(splitting, choice, True), *_scored(splitting, choice, False)))
    wanted = {number for each in pairs.values() for pair in each for number in (pair.document, pair.other)} | {*singles}
    held = {
        number: (document.id, words_of(document.text))
        for number, document in enumerate(reading.again())
        if number in wanted
    }

    def shown(*numbers: int) -> tuple[Excerpt, ...]:
        begin = max(0, _first_difference([held[number][1] for number in numbers]) - BEFORE)
        return tuple(
            Excerpt(
                name=held[number][0],
                split=splitting.splits[number] or "",
                left_out_by=choice.reason(number),
                begins=begin,
                words=tuple(held[number][1][begin : begin + SHOWN]),
                in_all=len(held[number][1]),
            )
            for number in numbers
        )

    def of_pair(pair: Pair) -> Example:
        left_out = pair.jaccard >= found.near.threshold
        return Example(left_out=left_out, jaccard=pair.jaccard, excerpts=shown(pair.other, pair.document))

    by_filter = {name: list(map(of_pair, each)) for name, each in pairs.items()}
    if choice.score is not None:
        by_filter[choice.score] = [
            Example(left_out=number in choice.removed, jaccard=None, excerpts=shown(number)) for number in singles
        ]
    return by_filter


def _scored(splitting: Splitting, choice: Choice, left_out: bool) -> Iterator[int]:
    """The first train documents that were left out by their score, or that stay; none where no share was asked for."""
    wanted = choice.score if left_out else None
    numbers = (number for number, split in enumerate(splitting.splits) if split == "train" and choice.score)
    return islice((number for number in numbers if choice.reason(number) == wanted), MOST)


def _first_difference(texts: list[list[str]]) -> int:
    """The first word in which two texts differ; 0 for a single text, and for equal ones."""
    if len(texts) == 1:
        return 0
    differing = (place for place, (one, other) in enumerate(zip_longest(*texts)) if one != other)
    return next(differing, 0)
