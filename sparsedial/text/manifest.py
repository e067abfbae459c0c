"""The manifest of a prepared text: one row a document, which says where it came from and where its tokens lie."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_type_hints

from sparsedial.errors import UserError
from sparsedial.text.corpus import Document
from sparsedial.text.shards import MAKE_AGAIN, Added, discard, file_sha256

if TYPE_CHECKING:
    import polars  # elsewhere imported where it is used: it is slow to import, and training on a text does without

MANIFEST = "documents.parquet"
CHUNK = 2**14  # rows that are held as Python objects before they are packed


class Row(NamedTuple):
    """One document; a manifest may hold more columns than these."""

    id: str  # its own in the corpus, and the same wherever the corpus lies
    source: str  # the file it came from
    group: str  # documents of one group stand in the same split
    split: str
    bytes: int
    first_token: int  # where its tokens begin in the split
    tokens: int  # without the end token behind them
    digest: str  # SHA-256 of its text


COLUMNS: dict[str, type] = get_type_hints(Row)


def row_of(document: Document, split: str, added: Added) -> Row:
    """The row of a document whose tokens were added to a split."""
    return Row(
        id=_printable(document.id),
        source=_printable(document.source),
        group=_printable(document.group),
        split=split,
        bytes=len(document.text),
        first_token=added.first_token,
        tokens=added.tokens,
        digest=hashlib.sha256(document.text).hexdigest(),
    )


def _printable(name: str) -> str:
    """A name as UTF-8 has it: that of a file may hold bytes which are no text."""
    return name.encode(errors="backslashreplace").decode()


class ManifestWriter:
    """A manifest on its way to disk; in place only once closed, and never half."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / MANIFEST
        self._partial = folder / f".{MANIFEST}.{os.getpid()}.partial"
        self._rows: list[Row] = []
        self._packed: list[polars.DataFrame] = []

    def __enter__(self) -> ManifestWriter:
        return self

    def __exit__(self, *reason: object) -> None:
        discard(self._partial)

    def add(self, row: Row) -> None:
        """Append a document."""
        self._rows.append(row)
        if len(self._rows) == CHUNK:
            self._pack()

    def _pack(self) -> None:
        with _signals_held():
            import polars

            self._packed.append(polars.DataFrame(self._rows, schema=COLUMNS, orient="row"))
        self._rows = []

    def close(self) -> dict[str, str | int]:
        """Put the file in place and say what it is."""
        self._pack()
        import polars

        try:
            with open(self._partial, "wb") as file:
                with _signals_held():
                    polars.concat(self._packed).write_parquet(file)
                file.flush()
                os.fsync(file.fileno())
            facts = {"sha256": file_sha256(self._partial), "bytes": self._partial.stat().st_size}
            os.replace(self._partial, self._path)
        except (OSError, polars.exceptions.PolarsError) as error:
            hint = "choose another folder, or free some space"
            raise UserError(f"cannot write {self._path}: {error}", hint=hint) from error
        return facts


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Signals wait until the block ends, and threads that polars starts in it never take one.

    Otherwise they would take Ctrl-C while the main thread holds it back, as it does to start a study's workers.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def read_manifest(path: Path) -> polars.LazyFrame:
    """The manifest in a file, whose rows are read where they are asked for.

    Raises: UserError naming the file where it is missing, no Parquet, or lacks a column of `Row`.
    """
    import polars

    try:
        manifest = polars.scan_parquet(path)
        found = manifest.collect_schema()
    except (OSError, polars.exceptions.PolarsError) as error:
        raise UserError(f"{path}: not readable as a manifest ({error})", hint=MAKE_AGAIN) from error
    for name, kind in polars.DataFrame(schema=COLUMNS).schema.items():
        if found.get(name) != kind:
            raise UserError(f"{path}: no manifest of documents: its column {name} is {found.get(name)}, not {kind}")
    return manifest
