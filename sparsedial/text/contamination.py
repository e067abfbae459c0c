"""Items of tasks that stand in a text: the share of each item's runs of 13 words that the text holds.

A word is a run of letters and digits, in lower case and Unicode's compatibility form (NFKC). So case, punctuation and
white space make no difference.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby

import numpy as np

from sparsedial.errors import UserError
from sparsedial.records.text import SkippedLines
from sparsedial.text.bad_lines import BadLines
from sparsedial.text.corpus import open_corpus
from sparsedial.text.documents import Document, documents
from sparsedial.text.sought import Sought

RUN_WORDS = 13
LEAST_WORDS = 8  # an item of fewer than 13 words is one run of all its words, if it has so many
BLOCK_WORDS, ITEMS = 2**16, 2**10  # that are hashed at once
OTHER = re.compile(r"[^\x00-\x7f\w]+")  # neither ASCII nor a letter or digit
SPACED = bytes(byte if byte >= 0x80 or chr(byte).isalnum() else 0x20 for byte in range(256))  # ASCII's, by byte
BREAK = b"\n"  # is no word, so a run that holds it is none of an item's
FACTOR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, kw_only=True)
class Contamination:
    """How much of each item a text holds."""

    shares: tuple[float | None, ...]  # of each item's runs that stand in the text; None: too short to be judged
    skipped: SkippedLines  # of the text

    @property
    def touched(self) -> int:
        """Items of which at least one run stands in the text."""
        return sum(bool(share) for share in self.shares)

    @property
    def not_judged(self) -> int:
        """Items of fewer than 8 words: they would stand in a text by chance."""
        return self.shares.count(None)


def contamination(items: Sequence[str], sources: Sequence[str]) -> Contamination:
    """Look for items, each as the model reads it with the right answer, in the text of files and folders.

    The text is read once and never held.

    Raises: UserError for a text that is missing, empty or unreadable.
    """
    bad, corpus = BadLines(), open_corpus(tuple(sources))
    runs = Runs(items)
    if not runs.look_through(documents(corpus, bad=bad)):
        raise UserError(f"{', '.join(corpus.sources)}: no text to look for the items in", field="against")
    return Contamination(shares=runs.shares, skipped=SkippedLines(lines=bad.count, named=tuple(bad.named)))


class Runs:
    """The runs of words of some items, and which of them were met in a text."""

    def __init__(self, items: Sequence[str]) -> None:
        batches = (items[start : start + ITEMS] for start in range(0, len(items), ITEMS))
        self._items = [run for batch in batches for run in _runs_of(batch)]
        by_length = groupby(sorted(filter(None, self._items), key=lambda run: run.words), key=lambda run: run.words)
        self._sought = {length: Sought(np.concatenate([run.hashes for run in runs])) for length, runs in by_length}

    def look_through(self, text: Iterable[Document]) -> int:
        """Mark the runs that a text holds; the number of its documents, where parts of one count each."""
        count, held, last = 0, [], None
        for document in text:
            count += 1
            place = document.source, document.group
            if place != last:
                held.append(BREAK)
            held += words_of(document.text.decode())
            last = place
            if len(held) >= BLOCK_WORDS:
                held = self._mark(held)
        self._mark(held)
        return count

    def _mark(self, words: list[bytes]) -> list[bytes]:
        """Mark the runs in these words; those of them that a later run can begin with."""
        for length, hashes in _hashes(words, self._sought):
            self._sought[length].look_through(hashes)
        return words[1 - RUN_WORDS :]

    @property
    def shares(self) -> tuple[float | None, ...]:
        """The share of each item's runs that were met; None for an item that is too short to be judged."""
        return tuple(
            None if run is None else float(np.mean(self._sought[run.words].met(run.hashes))) for run in self._items
        )


class Holders:
    """Items, and which of them a document holds a run of. A run that crosses into another document is not seen."""

    def __init__(self, items: Mapping[str, Sequence[str]]) -> None:
        """`items`: the texts of each task's items."""
        self.judged: dict[str, int] = {}  # items of each task that are long enough
        hashes, owners = defaultdict[int, list[np.ndarray]](list), defaultdict[int, list[np.ndarray]](list)
        self._items: list[tuple[str, int]] = []
        for task, texts in items.items():
            batches = (texts[start : start + ITEMS] for start in range(0, len(texts), ITEMS))
            for number, run in enumerate(run for batch in batches for run in _runs_of(batch)):
                if run is not None:
                    hashes[run.words].append(run.hashes)
                    owners[run.words].append(np.full(len(run.hashes), len(self._items)))
                    self._items.append((task, number))
            self.judged[task] = len(self._items) - sum(self.judged.values())
        joined = {length: (np.concatenate(hashes[length]), np.concatenate(owners[length])) for length in hashes}
        self._sought = {length: Sought(own) for length, (own, _) in joined.items()}
        orders = {length: np.argsort(own) for length, (own, _) in joined.items()}
        self._sorted = {length: (own[orders[length]], of[orders[length]]) for length, (own, of) in joined.items()}

    def held_by(self, text: bytes) -> set[tuple[str, int]]:
        """The items of which a document holds a run, as task and number."""
        found: set[int] = set()
        for length, hashes in _hashes(words_of(text.decode()), self._sought):
            met = self._sought[length].among(hashes)
            own, owners = self._sorted[length]
            for begin, end in zip(np.searchsorted(own, met), np.searchsorted(own, met, "right"), strict=True):
                found.update(owners[begin:end].tolist())
        return {self._items[number] for number in found}


@dataclass(frozen=True)
class _ItemRuns:
    """The runs of one item."""

    words: int  # of a run
    hashes: np.ndarray


def _runs_of(items: Sequence[str]) -> Iterator[_ItemRuns | None]:
    """The runs of each item; None for one that is too short to be judged."""
    each = [words_of(item) for item in items]
    hashes, start = dict(_hashes(list(chain.from_iterable(each)), range(LEAST_WORDS, RUN_WORDS + 1))), 0
    for words in each:
        length = min(len(words), RUN_WORDS)
        end = start + len(words) - length + 1
        yield _ItemRuns(length, hashes[length][start:end].copy()) if length >= LEAST_WORDS else None
        start += len(words)


def words_of(text: str) -> list[bytes]:
    """The words of a text as they are compared, in UTF-8.

    Half again as fast as `re.findall(r"[^\\W_]+", …)`, which gives the same.
    """
    plain = text.lower() if text.isascii() else OTHER.sub(" ", unicodedata.normalize("NFKC", text).casefold())
    return plain.encode().translate(SPACED).split()


def _hashes(words: Sequence[bytes], lengths: Collection[int]) -> Iterator[tuple[int, np.ndarray]]:
    """64-bit hashes of all runs of words of these lengths; equal runs of one process have equal hashes.

    A polynomial of the words' own hashes modulo 2^64: 10^6 runs and 10^9 words collide by chance once in 10^4 texts.
    """
    of_words = np.fromiter(map(hash, words), np.int64, len(words)).view(np.uint64)
    hashes = of_words
    for length in range(1, max(lengths, default=0) + 1):
        if length > 1:
            hashes = hashes[:-1] * FACTOR + of_words[length - 1 :]
        if length in lengths:
            yield length, hashes
