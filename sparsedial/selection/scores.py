"""Scores by which a share of a text stays: the groups of highest score. A new one is a function and an entry."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """How much groups of documents matter."""

    of: Callable[[Sequence[str], int], list[float]]  # of the names of groups, and a seed
    says: str
    source: str


def random_scores(groups: Sequence[str], seed: int) -> list[float]:
    """A number between 0 and 1 for each group, from its name and the seed alone: the order does not matter."""
    return [_number(f"{seed}:{group}") for group in groups]


def _number(name: str) -> float:
    digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


SCORES = {"random": Score(random_scores, "drawn at random: the control of every other score", "ours")}
