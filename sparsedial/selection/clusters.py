"""Groups of documents that copies join, by union-find: documents of one cluster are in the same split."""

from __future__ import annotations

from collections.abc import Sequence


class Clusters:
    """The groups of a corpus, and which of them belong together."""

    def __init__(self, groups: Sequence[str]) -> None:
        self._groups = groups  # of each document
        self._order = {group: place for place, group in enumerate(dict.fromkeys(groups))}
        self._above: dict[str, str] = {}  # an earlier group of the same cluster

    def join(self, one: int, other: int) -> None:
        """Put the groups of two documents into one cluster."""
        first, second = sorted((self.of(one), self.of(other)), key=self._order.__getitem__)
        if first != second:
            self._above[second] = first

    def of(self, document: int) -> str:
        """The cluster of a document: the name of its first group in the order of the corpus."""
        group = self._groups[document]
        while (above := self._above.get(group)) is not None:
            self._above[group] = self._above.get(above, above)  # a shorter way for the next time
            group = above
        return group
