"""Where each document of a reading goes: its split, or out."""

from __future__ import annotations

from dataclasses import dataclass

from sparsedial.errors import UserError
from sparsedial.records.text import HeldOutCounts, SelectionOf
from sparsedial.text.reading import Reading
from sparsedial.text.splits import SPLITS, assign, destinations, group_sizes


@dataclass(frozen=True, kw_only=True)
class Splitting:
    """Where each document of a reading goes."""

    splits: list[str | None]  # in the order of the corpus; None for one that is left out
    removed: HeldOutCounts  # documents that were left out
    by: str  # what is kept in one split
    selection: SelectionOf | None = None  # that left out documents of the train split


def split_reading(reading: Reading, whole: bool = False) -> Splitting:
    """The split of each document; `whole` puts everything into test.

    Raises: UserError where a split would be empty.
    """
    if whole:
        everything: list[str | None] = ["test"] * len(reading.entries)
        return Splitting(splits=everything, removed=HeldOutCounts(validation=0, test=0), by="nothing")
    found, removed = destinations(reading.entries, assign(group_sizes(reading.entries)))
    for split in SPLITS:
        if split not in found:
            raise UserError(
                f"text: none of {len(found)} documents is left for {split}, after {removed.total} equal ones",
                hint="give text that differs more",
            )
    return Splitting(splits=found, removed=removed, by=reading.unit)
