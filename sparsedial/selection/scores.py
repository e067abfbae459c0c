"""Scores by which a share of a text stays: the groups of highest score. A new one is a function and an entry."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

from sparsedial.records.selection import ReferenceSide

SIDES = get_args(ReferenceSide)


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Groups of documents, and what a score may know of them."""

    names: Sequence[str]
    seed: int
    losses: Sequence[float] = ()  # of each by the reference model, nats per token; none where no model was asked
    side: ReferenceSide | None = None


@dataclass(frozen=True)
class Score:
    """How much groups of documents matter."""

    of: Callable[[Groups], list[float]]
    says: str
    source: str
    reference: bool = False  # whether it needs the losses of a reference model, and a side


def random_scores(groups: Groups) -> list[float]:
    """A number between 0 and 1 for each group, from its name and the seed alone: the order does not matter."""
    return [_number(f"{groups.seed}:{name}") for name in groups.names]


def _number(name: str) -> float:
    digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def reference_scores(groups: Groups) -> list[float]:
    """Highest for the groups of lowest or of highest loss, or for those whose loss is nearest to the middle one."""
    if groups.side == "high":
        return list(groups.losses)
    if groups.side == "low":
        return [-loss for loss in groups.losses]
    order = sorted(range(len(groups.names)), key=lambda at: (groups.losses[at], groups.names[at]))
    place = {at: rank for rank, at in enumerate(order)}
    return [-abs(place[at] - (len(order) - 1) / 2) for at in range(len(order))]


SCORES = {
    "random": Score(random_scores, "drawn at random: the control of every other score", "ours"),
    "reference-loss": Score(
        reference_scores,
        "by the loss of a small model that was trained on a sample of the text",
        "Marion et al. 2023, arXiv 2309.04564",
        reference=True,
    ),
}
