"""A small text with planted copies, and a readable twin of the comparison."""

from __future__ import annotations

import random
import unicodedata
from dataclasses import dataclass
from pathlib import Path

VOCABULARY = [
    f"{first}{last}" for first in ["ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu"] for last in range(60)
]


def prose(seed: int, words: int = 150) -> list[str]:
    """Made-up words; two seeds share hardly a run of five."""
    return random.Random(seed).choices(VOCABULARY, k=words)


def edited(words: list[str], edits: int, seed: int) -> list[str]:
    """The words with so many of them replaced, dropped or doubled."""
    draw, now = random.Random(seed), list(words)
    for _ in range(edits):
        at = draw.randrange(len(now))
        now[at : at + 1] = draw.choice([["edited"], [], [now[at], now[at]]])
    return now


def plain_jaccard(one: str, other: str) -> float:
    """The Jaccard similarity of two texts by sets of tuples of five words."""
    first, second = (_runs(text) for text in (one, other))
    return len(first & second) / len(first | second)


def _runs(text: str) -> set[tuple[str, ...]]:
    words = unicodedata.normalize("NFKC", text).split()
    return {tuple(words[at : at + 5]) for at in range(max(1, len(words) - 4))}


@dataclass(frozen=True)
class Planted:
    """A folder of texts by name, and the pairs of an original and its edited copy."""

    folder: Path
    texts: dict[str, str]
    pairs: list[tuple[str, str]]

    def jaccard(self, one: str, other: str) -> float:
        return plain_jaccard(self.texts[one], self.texts[other])


def plant(folder: Path, originals: int = 160, copies: int = 2) -> Planted:
    """Originals, each with copies of up to fifteen edits; names are shuffled, so that a copy may come first."""
    texts: dict[str, str] = {}
    pairs = []
    names = random.Random(5).sample(range(originals * (copies + 1)), originals * (copies + 1))
    for number in range(originals):
        words = prose(number)
        own, *others = (f"{names.pop():04}.txt" for _ in range(copies + 1))
        texts[own] = " ".join(words)
        for copy, other in enumerate(others):
            texts[other] = "\n".join(edited(words, (number + 5 * copy) % 16, seed=1000 * copy + number))
            pairs.append((own, other))
    folder.mkdir(parents=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return Planted(folder, texts, pairs)
