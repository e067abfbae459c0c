"""What stays of a text: no copies, and of the rest the share that was asked for, in whole groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.records.selection import ReferenceSide
from sparsedial.selection.contaminated import Contaminated, find_contaminated
from sparsedial.selection.duplicates import Duplicates, Each, Removal, find_duplicates
from sparsedial.selection.filters import CONTAMINATED, EQUAL_TO_TRAIN
from sparsedial.selection.judging import Quality, judge_quality
from sparsedial.selection.scores import SCORES, Groups
from sparsedial.selection.spans import REASON, Spans, find_spans
from sparsedial.text.reading import Reading
from sparsedial.text.splitting import Splitting


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked for."""

    near: float  # the least Jaccard similarity of copies
    keep: float | None  # share of the bytes of train text without copies; None for all
    score: str
    seed: int
    workers: int
    side: ReferenceSide | None = None  # of a score that has sides
    quality: tuple[str, ...] = ()  # families of rules
    spans: float | None = None  # the share of a document that may be repeated passages; None: not looked for
    items: Mapping[str, Sequence[str]] = field(default_factory=dict)  # texts of tasks' items, by task
    items_stay: bool = False  # documents that hold items are told, and stay
    losses: Mapping[int, float] | None = None  # of the train documents by the reference model; None without one
    domain_of: Callable[[int], str] | None = None  # of a document that was compared; None: one share of the whole text


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """Which documents are left out, and why; by their number in the corpus."""

    removed: Mapping[int, Removal]
    duplicates: Duplicates
    quality: Quality
    spans: Spans
    contaminated: Contaminated
    losses: Mapping[int, float]  # of the train documents by a reference model; none without one
    score: str | None  # by which a share stays; None where all does

    def reason(self, number: int) -> str | None:
        """The filter that left a document out; None for one that stays."""
        removal = self.removed.get(number)
        return removal and removal.reason


def choose(reading: Reading, splitting: Splitting, wanted: Wanted, sketches_at: Path, each: Each) -> Choice:
    """Leave out what holds items of tasks or breaks a rule of quality, then copies, then the groups of lowest score.

    Held-out text stays. What goes first is compared with nothing, so each copy that is left out has a twin that stays.
    `sketches_at` and `each` are as in `find_duplicates`.

    Raises: UserError where no train document is left, the disk is full, or a file changed since it was read.
    """
    contaminated = find_contaminated(reading, splitting.splits, wanted.items)
    holding = {} if wanted.items_stay else contaminated.held_by
    clean = [None if number in holding else split for number, split in enumerate(splitting.splits)]
    if "train" not in clean:
        raise UserError(
            f"all {len(holding):,} documents of the train split hold items of {', '.join(wanted.items)}",
            hint="<contaminated> report tells them and lets them stay",
            field="tasks",
        )
    quality = judge_quality(reading, clean, wanted.quality)
    splits = [None if number in quality.broken else split for number, split in enumerate(clean)]
    if "train" not in splits:
        raise UserError(
            f"all {len(quality.broken):,} documents of the train split break a rule of quality",
            hint=f"the rules are made for English web pages: give fewer of {', '.join(wanted.quality)}",
            field="quality",
        )
    found = find_duplicates(
        reading, splits, near=wanted.near, workers=wanted.workers, sketches_at=sketches_at, each=each
    )
    removed = {number: Removal(EQUAL_TO_TRAIN) for number, split in enumerate(splitting.splits) if split is None}
    removed |= dict.fromkeys(holding, Removal(CONTAMINATED))
    removed |= {number: Removal(rule) for number, rule in quality.broken.items()}
    removed |= found.removed
    left = [None if number in removed else split for number, split in enumerate(splits)]
    spans = find_spans(reading, left, wanted.spans, wanted.workers)
    removed |= {number: Removal(REASON) for number in spans.left_out}
    groups = {
        number: found.clusters.of(number)
        for number, split in enumerate(splits)
        if split == "train" and number not in removed
    }
    if not groups:
        raise UserError(
            f"all {splits.count('train'):,} documents of the train split are copies of held-out text",
            hint="give text that differs more, or a higher <near>",
        )
    if wanted.keep is not None:
        for part in _parts(groups, wanted.domain_of):
            removed |= dict.fromkeys(_beyond(reading, part, wanted, wanted.keep), Removal(wanted.score))
    return Choice(
        removed=removed,
        duplicates=found,
        quality=quality,
        spans=spans,
        contaminated=contaminated,
        losses=wanted.losses or {},
        score=None if wanted.keep is None else wanted.score,
    )


def _parts(groups: Mapping[int, str], domain_of: Callable[[int], str] | None) -> list[Mapping[int, str]]:
    """The groups of documents, of each domain apart where there are domains."""
    if domain_of is None:
        return [groups]
    parts: dict[str, dict[int, str]] = {}
    for number, group in groups.items():
        parts.setdefault(domain_of(number), {})[number] = group
    return list(parts.values())


def _beyond(reading: Reading, groups: Mapping[int, str], wanted: Wanted, share: float) -> list[int]:
    """The documents whose groups have too low a score to be in the share that stays."""
    sizes: dict[str, int] = {}
    nats: dict[str, float] = {}  # each document's loss, times its bytes
    for number, group in groups.items():
        size = reading.entries[number].size
        sizes[group] = sizes.get(group, 0) + size
        nats[group] = nats.get(group, 0.0) + (wanted.losses[number] * size if wanted.losses else 0.0)
    losses = [nats[group] / size for group, size in sizes.items()]
    known = Groups(names=list(sizes), seed=wanted.seed, losses=losses, side=wanted.side)
    staying = highest(sizes, SCORES[wanted.score].of(known), share)
    return [number for number, group in groups.items() if group not in staying]


def highest(sizes: Mapping[str, int], scores: Sequence[float], share: float) -> set[str]:
    """The groups of highest score whose bytes together come nearest to a share of all; at least one."""
    wanted, held = share * sum(sizes.values()), 0
    staying: set[str] = set()
    for _, group in sorted(zip(scores, sizes, strict=True), reverse=True):
        if staying and held + sizes[group] / 2 > wanted:
            break
        staying.add(group)
        held += sizes[group]
    return staying
