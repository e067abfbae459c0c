"""Which documents of a text hold items of tasks: a run of 13 words of one, as `evaluate --against` finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from sparsedial.text.contamination import Holders
from sparsedial.text.reading import Reading


@dataclass(frozen=True)
class Contaminated:
    """The documents that hold items, and the items; nothing where no task was asked for."""

    held_by: Mapping[int, Set[tuple[str, int]]]  # items as task and number, by the document's number in the corpus
    judged: Mapping[str, int]  # items of each task that are long enough to be looked for

    def documents(self, task: str) -> list[int]:
        """The documents that hold an item of a task."""
        return [number for number, items in self.held_by.items() if any(name == task for name, _ in items)]

    def items(self, task: str) -> int:
        """The items of a task that some document holds."""
        return len({number for items in self.held_by.values() for name, number in items if name == task})


def find_contaminated(
    reading: Reading, splits: Sequence[str | None], texts: Mapping[str, Sequence[str]]
) -> Contaminated:
    """Read the text once more, and look for the items of each task in its train documents.

    Raises: UserError where a file changed since it was read.
    """
    if not texts:
        return Contaminated({}, {})
    holders, held_by = Holders(texts), dict[int, Set[tuple[str, int]]]()
    for number, (document, split) in enumerate(zip(reading.again(), splits, strict=True)):
        if split == "train" and (items := holders.held_by(document.text)):
            held_by[number] = items
    return Contaminated(held_by, holders.judged)
