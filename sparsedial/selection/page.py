"""A document as rules of quality look at it: its words, lines and paragraphs, and how much of it repeats."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from sparsedial.selection.words import word_runs

PARAGRAPHS = re.compile(r"\n\s*\n")


class Page:
    """A document that is no blank one; one of nothing but Unicode's wide spaces is a word, a line and a paragraph."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.words = text.split() or [text]

    @cached_property
    def lines(self) -> list[str]:
        """The lines that are not blank, without the white space around them."""
        return [line.strip() for line in self.text.splitlines() if line.strip()] or [self.text]

    @cached_property
    def paragraphs(self) -> list[str]:
        """What blank lines separate."""
        return [part.strip() for part in PARAGRAPHS.split(self.text) if part.strip()] or [self.text]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Characters of each word. Shapes: int64 [words]"""
        return np.array([len(word) for word in self.words], np.int64)

    @cached_property
    def numbers(self) -> Sequence[int]:
        """A number for each word; equal words have the same one."""
        known: dict[str, int] = {}
        return [known.setdefault(word, len(known)) for word in self.words]

    def runs(self, words: int) -> np.ndarray:
        """A hash of each run of so many words, in their order. Shapes: uint64 [runs]; none in a shorter document"""
        return word_runs(self.numbers, words) if len(self.words) >= words else np.empty(0, np.uint64)

    def share_of(self, lines: Sequence[str]) -> float:
        """How many of its lines these are."""
        return len(lines) / len(self.lines)


def duplicates_share(parts: Sequence[str]) -> float:
    """The share of parts that equal an earlier one."""
    return 1 - len(set(parts)) / len(parts)


def duplicate_characters_share(parts: Sequence[str]) -> float:
    """The share of characters that are in parts which equal an earlier one."""
    seen: set[str] = set()
    twice = 0
    for part in parts:
        twice += len(part) * (part in seen)
        seen.add(part)
    return twice / sum(map(len, parts))


def top_run_share(page: Page, words: int) -> float:
    """The share of the words' characters that are in the most frequent run of so many words; 0 where none comes twice.

    Where several are as frequent, the one with most characters counts. A run that overlaps itself counts each time, but
    the share is at most 1.
    """
    hashes, first, counts = np.unique(page.runs(words), return_index=True, return_counts=True)
    if not len(hashes) or counts.max() < 2:
        return 0.0
    ends = np.concatenate([[0], np.cumsum(page.lengths)])
    most = first[counts == counts.max()]
    longest = int((ends[most + words] - ends[most]).max())
    return min(1.0, longest * int(counts.max()) / int(ends[-1]))


def repeated_runs_share(page: Page, words: int) -> float:
    """The share of the words' characters that are in runs of so many words which stood before; none counts twice."""
    hashes = page.runs(words)
    again = np.ones(len(hashes), bool)
    again[np.unique(hashes, return_index=True)[1]] = False
    covered = np.zeros(len(page.words), bool)
    for shift in range(words if len(hashes) else 0):
        covered[shift : shift + len(hashes)] |= again
    return float(page.lengths[covered].sum() / page.lengths.sum())
