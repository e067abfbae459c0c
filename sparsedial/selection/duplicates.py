"""Exact and near copies: which train documents are copies of held-out text, or of an earlier train document that stays.

A document is left out only for a twin that stays. So in a chain in which A is like B and B like C, but A is not like C,
both A and C stay: the first one in the order of the corpus, and what is like none that stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.selection.bands import Bands, bands_for
from sparsedial.selection.clusters import Clusters
from sparsedial.selection.filters import EXACT, HELD_OUT_EXACT, HELD_OUT_NEAR, NEAR
from sparsedial.selection.in_order import WorkerDied, in_order
from sparsedial.selection.index import Held, Index, Match
from sparsedial.selection.pairs import MOST, Pair, Pairs
from sparsedial.selection.sketch import Sketch, sketches
from sparsedial.selection.sketch_file import SketchFile, packed
from sparsedial.store import digest
from sparsedial.text.documents import Document
from sparsedial.text.reading import Reading

Each = Callable[[Document, str | None], None]
VERSION = 1  # of the sketches; a file of another one is not used
BELOW = 0.2  # how far below the threshold pairs are still compared, as examples of what is no copy


@dataclass(frozen=True)
class Removal:
    """Why a document is left out, and its twin that stays."""

    reason: str
    twin: int | None = None  # a number in the corpus
    jaccard: float | None = None


@dataclass
class Duplicates:
    """What was found in one text; documents by their number in the corpus."""

    clusters: Clusters
    near: Pairs  # around the threshold
    exact: list[Pair] = field(default_factory=list)  # the first ones
    removed: dict[int, Removal] = field(default_factory=dict)
    across_held_out: int = 0  # documents of one held-out split that are copies of one of the other


def find_duplicates(
    reading: Reading, splits: Sequence[str | None], *, near: float, workers: int, sketches_at: Path, each: Each
) -> Duplicates:
    """Compare held-out documents with each other, then train documents with them and with each other, in order.

    `near` is the least exact Jaccard similarity of copies, over their runs of five words. `sketches_at` is the file in
    which the sketches lie meanwhile; one that an earlier start left is used, and it stays where this one is stopped.
    `each` gets every document once, in the order of the corpus, with its split.

    Raises: UserError where the disk is full, a process was killed, or a file changed since it was read.
    """
    bands = bands_for(near)
    made_for = bytes.fromhex(digest([VERSION, reading.digest, bands.count, bands.rows]))
    with closing(SketchFile(sketches_at, made_for)) as held:
        try:
            _sketch(held, _told(reading, splits, each), bands, workers)
            found = compared(held, splits, [item.group for item in reading.entries], near)
        except WorkerDied:
            raise  # the sketches stay, as after any other kill
        except UserError:
            held.remove()
            raise
        held.remove()
    return found


def compared(held: Held, splits: Sequence[str | None], groups: Sequence[str], near: float) -> Duplicates:
    """Compare documents by their sketches; splits and groups are those of each document."""
    found = Duplicates(clusters=Clusters(groups), near=Pairs(near))
    search = _Search(splits, Index(held), found)
    for part in (("validation", "test"), ("train",)):
        for batch in held.batches([split in part for split in splits]):
            search.compare(batch)
    return found


def _told(reading: Reading, splits: Sequence[str | None], each: Each) -> Iterator[Document]:
    for document, split in zip(reading.again(), splits, strict=True):
        each(document, split)
        yield document


def _sketch(held: SketchFile, documents: Iterator[Document], bands: Bands, workers: int) -> None:
    """Sketch what the file does not hold yet."""
    for _ in islice(documents, held.documents):
        pass
    for _, batch in in_order(documents, partial(packed_sketches, bands=bands), workers):
        held.add(batch)


def packed_sketches(texts: Sequence[bytes], bands: Bands) -> bytes:
    """The sketches of a batch of texts, as they lie in the file."""
    return packed(sketches(texts, bands))


class _Search:
    """Documents that come one by one, held-out ones first."""

    def __init__(self, splits: Sequence[str | None], index: Index, found: Duplicates) -> None:
        self._splits, self._index, self._found = splits, index, found
        self._seen: dict[bytes, int] = {}  # the first document of each text, among those that stay

    def compare(self, batch: Sequence[tuple[int, Sketch]]) -> None:
        """Compare documents with those that stay; each stays itself where it is held out or a copy of none."""
        self._index.begin([sketch for _, sketch in batch])
        for at, (number, sketch) in enumerate(batch):
            self._compare(number, sketch, self._twins(number, at, sketch))

    def _compare(self, number: int, sketch: Sketch, twins: Sequence[Match]) -> None:
        for twin in twins:
            if self._splits[twin.document] == self._splits[number]:
                self._found.clusters.join(number, twin.document)
        if self._splits[number] == "train" and twins:
            self._remove(number, twins[0], exact=sketch.digest in self._seen)
            return
        self._found.across_held_out += any(self._splits[twin.document] != self._splits[number] for twin in twins)
        if self._seen.setdefault(sketch.digest, number) == number:
            self._index.add(number, sketch)

    def _twins(self, number: int, at: int, sketch: Sketch) -> list[Match]:
        """The documents that this one is a copy of, held-out ones first; it is at this place of its batch."""
        first = self._seen.get(sketch.digest)
        if first is not None:
            if len(self._found.exact) < MOST and self._splits[number] == "train":
                self._found.exact.append(Pair(number, first, 1.0))
            return [Match(first, 1.0)]
        threshold = self._found.near.threshold
        close = self._index.matches(at, sketch, max(0.0, threshold - BELOW))
        for match in close if self._splits[number] == "train" else ():
            self._found.near.add(Pair(number, match.document, match.jaccard))
        return [match for match in close if match.jaccard >= threshold]

    def _remove(self, number: int, twin: Match, exact: bool) -> None:
        held_out = self._splits[twin.document] != "train"
        reason = (HELD_OUT_EXACT if held_out else EXACT) if exact else (HELD_OUT_NEAR if held_out else NEAR)
        self._found.removed[number] = Removal(reason, twin.document, twin.jaccard)
