"""How much text a selection read and keeps, in all and by domain."""

from __future__ import annotations

from collections.abc import Mapping

import polars

from sparsedial.errors import UserError
from sparsedial.records.selection import DomainAmounts, TextAmount
from sparsedial.text.corpus import Corpus
from sparsedial.text.domains import domains_of
from sparsedial.text.manifest import printable


def asked_domains(corpus: Corpus, needed: bool) -> Mapping[str, str] | None:
    """The domain of each source; None where the text is not one folder with sub-folders.

    Raises: UserError where it is none, and domains are needed.
    """
    parts = domains_of(corpus)
    if parts is None and needed:
        raise UserError(
            "the text has no domains",
            hint="they are the sub-folders of one folder: name that folder alone",
            field="keep_by",
        )
    if parts is None:
        return None
    return {printable(file.source): name for name, part in parts.items() for file in part.files}


def amount_of(rows: polars.DataFrame) -> TextAmount:
    """How much text these documents are."""
    return TextAmount(documents=rows.height, bytes=int(rows["bytes"].sum()), tokens=None)


def domains_amounts(frame: polars.DataFrame) -> dict[str, DomainAmounts] | None:
    """How much of each domain was read and stays, and its share of the train text before and after."""
    names = frame["domain"].drop_nulls().unique().sort().to_list()
    train = frame.filter(polars.col("split") == "train")
    before, after = (_bytes_by_domain(rows) for rows in (train, train.filter("kept")))
    parts = {name: frame.filter(polars.col("domain") == name) for name in names}
    each = {
        name: DomainAmounts(
            read=amount_of(part),
            kept=amount_of(part.filter("kept")),
            share_before=before.get(name, 0) / sum(before.values()),
            share_after=after.get(name, 0) / sum(after.values()),
        )
        for name, part in parts.items()
    }
    return each or None


def _bytes_by_domain(rows: polars.DataFrame) -> dict[str, int]:
    return dict(rows.group_by("domain").agg(polars.col("bytes").sum()).iter_rows())
