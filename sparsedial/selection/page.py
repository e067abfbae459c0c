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
    def whole_lines(self) -> list[str]:
        """The lines that are not blank, as they are, whichever way their ends are written."""
        return [line.removesuffix("\r") for line in self.text.split("\n") if line.strip()] or [self.text]

    @cached_property
    def spoken(self) -> np.ndarray:
        """Which words have a letter or a digit. Shapes: bool [words]"""
        return np.array([any(map(str.isalnum, word)) for word in self.words], bool)

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


def duplicates_share(parts: Sequence[str]) -> float:
    """The share of parts that equal an earlier one."""
    return 1 - len(set(parts)) / len(parts)


def duplicate_characters(parts: Sequence[str]) -> int:
    """The characters of parts that equal an earlier one."""
    seen: set[str] = set()
    twice = 0
    for part in parts:
        twice += len(part) * (part in seen)
        seen.add(part)
    return twice


def top_run_share(page: Page, words: int) -> float:
    """The share of the text's characters that are in the most frequent run of so many words; 0 where none comes twice.

    Words are one space apart. Where several are as frequent, the one with most characters counts. A run that overlaps
    itself counts each time, but the share is at most 1.
    """
    _, first, counts = _places(page.runs(words))
    if not len(first) or counts.max() < 2:
        return 0.0
    ends = np.concatenate([[0], np.cumsum(page.lengths)])
    most = first[counts == counts.max()]
    longest = int((ends[most + words] - ends[most]).max()) + words - 1
    return min(1.0, longest * int(counts.max()) / len(page.text))


def repeated_runs_share(page: Page, words: int) -> float:
    """The share of the text's characters that are in runs of so many words which stood before; none counts twice."""
    hashes = page.runs(words)
    again = np.ones(len(hashes), bool)
    again[_places(hashes)[1]] = False
    covered = np.zeros(len(page.words), bool)
    for shift in range(words if len(hashes) else 0):
        covered[shift : shift + len(hashes)] |= again
    return float(page.lengths[covered].sum() / len(page.text))


def _places(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The different hashes, where each stands first, and how often: `np.unique`, which is slow for 64-bit integers."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    begins = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])
    return ordered[begins], order[begins], np.diff(begins, append=len(ordered))
