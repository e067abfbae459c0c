"""A selection as a text: its originals, without the train documents that its manifest leaves out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import NoReturn

from sparsedial.errors import UserError
from sparsedial.records.record import read
from sparsedial.records.selection import SELECT_FILE, Selected
from sparsedial.records.text import SelectionOf
from sparsedial.text.corpus import Corpus, is_selection, open_corpus
from sparsedial.text.manifest import MANIFEST, printable, read_manifest
from sparsedial.text.reading import Reading
from sparsedial.text.shards import Stored
from sparsedial.text.splitting import Splitting

AGAIN = "run `sparsedial select` again, into a new folder"


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """What `select` left in a folder, opened and checked."""

    folder: Path
    record: Selected
    corpus: Corpus  # the originals, under the name of the folder

    @property
    def digest(self) -> str:
        """Of the manifest."""
        return self.record.manifest.digest

    def require_same(self, reading: Reading) -> None:
        """Raises: UserError naming the document of the originals that was changed since, is gone or is new."""
        if reading.digest != self.record.text_digest:
            self._refuse(reading)

    def _refuse(self, reading: Reading) -> NoReturn:
        rows = read_manifest(self.folder / MANIFEST).select("id", "digest").collect().iter_rows()
        for document, (name, digest) in zip_longest(reading.again(), rows, fillvalue=(None, None)):
            if isinstance(document, tuple):
                raise UserError(f"{self.folder}: the text that it selects from no longer holds {name}", hint=AGAIN)
            if name != printable(document.id):
                problem = f"the text that it selects from has {document.id} where {name or 'its end'} was"
                raise UserError(f"{self.folder}: {problem}", hint=AGAIN)
            if hashlib.sha256(document.text).hexdigest() != digest:
                raise UserError(f"{self.folder}: {document.id} was changed since it was selected from", hint=AGAIN)
        raise UserError(f"{self.folder}: the text that it selects from is grouped in another way now", hint=AGAIN)

    def applied(self, splitting: Splitting) -> Splitting:
        """The splits of the originals, without the train documents that are left out.

        Raises: UserError where the manifest has other splits, or leaves out a held-out document.
        """
        rows = read_manifest(self.folder / MANIFEST).select("split", "kept").collect().iter_rows()
        splits: list[str | None] = []
        for now, (split, kept) in zip(splitting.splits, rows, strict=True):
            if now != (split if kept or split == "train" else None):
                raise UserError(f"{self.folder}: its splits are not those of this text", hint=AGAIN)
            splits.append(now if kept else None)
        left_out = splitting.splits.count("train") - splits.count("train")
        made = SelectionOf(manifest_digest=self.digest, documents_left_out=left_out)
        return replace(splitting, splits=splits, selection=made)


def open_selection(sources: tuple[str, ...]) -> Selection | None:
    """The selection that is named; None where the sources are files and folders of text.

    Raises: UserError where it is named beside others, its files are damaged, edited or of another selection, or its
    originals are missing.
    """
    paths = [Path(source).expanduser() for source in sources]
    folder = next((path for path in paths if is_selection(path)), None)
    if folder is None:
        return None
    if len(paths) > 1:
        raise UserError(f"{folder}: a selection is a text of its own", hint="name it alone")
    record = read(folder / SELECT_FILE, Selected)
    made = record.manifest
    fault = Stored(folder / MANIFEST, made.digest, made.bytes).fault(verify=True)
    if fault is not None:
        raise UserError(fault.problem, hint=AGAIN)
    try:
        corpus = open_corpus(record.sources)
    except UserError as error:
        raise UserError(f"{folder}: the text that it selects from: {error.problem}", hint=AGAIN) from error
    return Selection(folder=folder, record=record, corpus=replace(corpus, sources=(str(folder),)))
