"""The manifest of a prepared text: one row per document, with its origin and where its tokens lie."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, get_type_hints

import numpy as np

from sparsedial.errors import UserError
from sparsedial.records.text import ManifestFile
from sparsedial.text.documents import Document
from sparsedial.text.shards import MAKE_AGAIN, Added, discard, file_sha256
from sparsedial.text.signals import signals_held

if TYPE_CHECKING:
    import polars  # otherwise imported where it is used: importing it is slow, and training does not need it

MANIFEST = "documents.parquet"
CHUNK = 2**14  # rows that are held as Python objects before they are packed

Scores: TypeAlias = Sequence[float | None] | np.ndarray


class Row(NamedTuple):
    """One document; a manifest may hold more columns than these."""

    id: str  # unique in the corpus, and the same wherever the corpus lies
    source: str  # the file it came from
    group: str  # documents of one group are in the same split
    split: str
    bytes: int
    first_token: int  # where its tokens begin in the split
    tokens: int  # without the end token after them
    digest: str  # SHA-256 of its text


COLUMNS: dict[str, type] = get_type_hints(Row)


def row_of(document: Document, split: str, added: Added) -> Row:
    """The row of a document whose tokens were added to a split."""
    return Row(
        id=printable(document.id),
        source=printable(document.source),
        group=printable(document.group),
        split=split,
        bytes=len(document.text),
        first_token=added.first_token,
        tokens=added.tokens,
        digest=hashlib.sha256(document.text).hexdigest(),
    )


def printable(name: str) -> str:
    """A name as valid UTF-8; the name of a file may hold bytes that are not."""
    return name.encode(errors="backslashreplace").decode()


class Rows:
    """Rows of documents, packed as they come."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._packed: list[polars.DataFrame] = []

    def add(self, row: Row) -> None:
        """Append a document."""
        self._rows.append(row)
        if len(self._rows) == CHUNK:
            self._pack()

    def _pack(self) -> None:
        with signals_held():
            import polars

            self._packed.append(polars.DataFrame(self._rows, schema=COLUMNS, orient="row"))
        self._rows = []

    def frame(self) -> polars.DataFrame:
        """All of them."""
        self._pack()
        with signals_held():
            import polars

            return polars.concat(self._packed)


class ManifestWriter(Rows):
    """A manifest that is being written; it appears on disk only when it is closed, and whole."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._path = folder / MANIFEST

    def close(self) -> ManifestFile:
        """Write the file; returns its digest and size.

        Raises: UserError where it cannot be written.
        """
        return write_manifest(self._path, self.frame())


def write_scores(path: Path, manifest: polars.LazyFrame, scores: Mapping[str, Scores]) -> ManifestFile:
    """Write a manifest with a further column for each score; all other columns stay as they are.

    A score has a number for each row of the manifest, in its order, and None where the document was not scored. It
    replaces an earlier score of the same name.

    Raises: UserError where the file cannot be written; ValueError for the name of another column, another count
        of numbers, NaN or infinity.
    """
    with signals_held():
        known = manifest.collect()
        columns = [_score_column(name, values, known.height) for name, values in scores.items()]
        scored = known.with_columns(columns)
    return write_manifest(path, scored)


def _score_column(name: str, values: Scores, rows: int) -> polars.Series:
    import polars

    if name in COLUMNS:
        raise ValueError(f"{name} is a column of every manifest, not a score")
    column = polars.Series(name, values, dtype=polars.Float64)
    if len(column) != rows:
        raise ValueError(f"{column.name}: {len(column)} numbers for {rows} documents")
    if not column.drop_nulls().is_finite().all():
        raise ValueError(f"{column.name}: holds a number that is not finite; a document without a score has None")
    return column


def write_manifest(path: Path, manifest: polars.DataFrame) -> ManifestFile:
    """Put a manifest in place, whole or not at all.

    Raises: UserError where it cannot be written.
    """
    import polars

    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            with signals_held():
                manifest.write_parquet(file)
            file.flush()
            os.fsync(file.fileno())
        written = ManifestFile(sha256=file_sha256(partial), bytes=partial.stat().st_size)
        os.replace(partial, path)
    except (OSError, polars.exceptions.PolarsError) as error:
        hint = "choose another folder, or free some space"
        raise UserError(f"cannot write {path}: {error}", hint=hint) from error
    finally:
        discard(partial)
    return written


def read_manifest(path: Path) -> polars.LazyFrame:
    """The manifest in a file; rows are read on demand.

    Raises: UserError naming the file where it is missing, not Parquet, or lacks a column of `Row`.
    """
    import polars

    try:
        manifest = polars.scan_parquet(path)
        found = manifest.collect_schema()
    except (OSError, polars.exceptions.PolarsError) as error:
        raise UserError(f"{path}: not readable as a manifest ({error})", hint=MAKE_AGAIN) from error
    for name, kind in polars.DataFrame(schema=COLUMNS).schema.items():
        if found.get(name) != kind:
            raise UserError(f"{path}: not a manifest of documents: its column {name} is {found.get(name)}, not {kind}")
    return manifest
