"""What stays of a text: no copies, and of the rest the share that was asked for, in whole groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.selection.duplicates import Duplicates, Each, Removal, find_duplicates
from sparsedial.selection.filters import EQUAL_TO_TRAIN
from sparsedial.selection.scores import SCORES
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """Which documents are left out, and why; by their number in the corpus."""

    removed: Mapping[int, Removal]
    duplicates: Duplicates
    score: str | None  # by which a share stays; None where all does

    def reason(self, number: int) -> str | None:
        """The filter that left a document out; None for one that stays."""
        removal = self.removed.get(number)
        return removal and removal.reason


def choose(reading: Reading, splitting: Splitting, wanted: Wanted, folder: Path, each: Each) -> Choice:
    """Leave out copies, then the groups of lowest score. Held-out text stays as it is. `each` as in `find_duplicates`.

    Raises: UserError where no train document is left, the disk is full, or a file changed since it was read.
    """
    splits = splitting.splits
    found = find_duplicates(reading, splits, near=wanted.near, workers=wanted.workers, folder=folder, each=each)
    removed = {number: Removal(EQUAL_TO_TRAIN) for number, split in enumerate(splits) if split is None}
    removed |= found.removed
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
        sizes: dict[str, int] = {}
        for number, group in groups.items():
            sizes[group] = sizes.get(group, 0) + reading.entries[number].size
        names = list(sizes)
        staying = highest(sizes, SCORES[wanted.score].of(names, wanted.seed), wanted.keep)
        removed |= {number: Removal(wanted.score) for number, group in groups.items() if group not in staying}
    return Choice(removed=removed, duplicates=found, score=None if wanted.keep is None else wanted.score)


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
