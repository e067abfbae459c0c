"""The manifest of a selection: one row for each document that was read, in the order of the corpus."""

from __future__ import annotations

from collections.abc import Mapping

import polars

from sparsedial.selection.choosing import Choice
from sparsedial.text.documents import Document
from sparsedial.text.manifest import Rows, printable, row_of
from sparsedial.text.reading import Reading
from sparsedial.text.shards import Added
from sparsedial.text.splits import assign, group_sizes

NO_TOKENS = Added(0, 0, kept=True)  # a text has tokens once it has a tokenizer
COLUMNS = (
    "id", "source", "group", "domain", "split", "bytes", "first_token", "tokens", "digest", "duplicate_of", "jaccard",
    "loss", "dsir", "quality", "kept", "reason",
)  # fmt: skip
UNKNOWN = ("first_token", "tokens", "loss", "dsir", "quality")  # columns that hold nothing unless something was asked


class Table:
    """The rows of documents that come one by one, in the order of the corpus."""

    def __init__(self, reading: Reading) -> None:
        self._rows, self._places = Rows(), assign(group_sizes(reading.entries))
        self.sources: list[str] = []  # of each document

    def add(self, document: Document, split: str | None) -> None:
        """Add a document; one that is left out of every text, as it equals a train document, has the split it had."""
        row = row_of(document, split or self._places[document.group], NO_TOKENS)
        self._rows.add(row)
        self.sources.append(row.source)

    def frame(self, choice: Choice, domains: Mapping[str, str] | None) -> polars.DataFrame:
        """The manifest; `domains` has the domain of each source."""
        return _chosen(self._rows.frame(), choice, domains)


def _chosen(frame: polars.DataFrame, choice: Choice, domains: Mapping[str, str] | None) -> polars.DataFrame:
    """The rows with what was chosen."""
    numbers = range(frame.height)
    removals = [choice.removed.get(number) for number in numbers]
    clusters = choice.duplicates.clusters
    ids, sources = frame.get_column("id"), frame.get_column("source").to_list()
    twins = [removal.twin if removal else None for removal in removals]
    columns = {
        "group": polars.Series([printable(clusters.of(number)) for number in numbers], dtype=polars.String),
        "domain": polars.Series([domains[name] if domains else None for name in sources], dtype=polars.String),
        "duplicate_of": ids.gather(polars.Series(twins, dtype=polars.Int64)),
        "jaccard": polars.Series([removal and removal.jaccard for removal in removals], dtype=polars.Float64),
        "kept": polars.Series([removal is None for removal in removals], dtype=polars.Boolean),
        "reason": polars.Series([removal and removal.reason for removal in removals], dtype=polars.String),
    }
    whole, real = polars.lit(None, polars.Int64), polars.lit(None, polars.Float64)
    unknown = {"first_token": whole, "tokens": whole, "dsir": real}
    scores = {
        name: polars.Series([values.get(number) for number in numbers], dtype=polars.Float64)
        for name, values in (("loss", choice.losses), ("quality", choice.quality.shares))
    }
    return frame.with_columns(**columns, **unknown, **scores).select(COLUMNS)
