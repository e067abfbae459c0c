"""The steps of a datatrove pipeline that leaves out what `select` would: read, sketch, compare, leave out.

Each task of a stage reads a part of the files, and tasks follow the order of the corpus, so the result does not depend
on their number. Splits depend on the sizes of all documents, so they are known in the one task that compares.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sparsedial.errors import UserError
from sparsedial.selection.bands import bands_for
from sparsedial.selection.duplicates import compared, packed_sketches
from sparsedial.selection.filters import EQUAL_TO_TRAIN
from sparsedial.selection.in_order import in_order
from sparsedial.selection.judging import first_broken
from sparsedial.selection.sketch import Sketch
from sparsedial.selection.sketch_file import SketchFile
from sparsedial.text.corpus import open_corpus
from sparsedial.text.documents import Document, documents
from sparsedial.text.manifest import printable
from sparsedial.text.splits import Entry, assign, cuts, destinations, entry, group_sizes

try:
    from datatrove.data import Document as TroveDocument  # pyright: ignore[reportMissingImports]
    from datatrove.pipeline.base import PipelineStep  # pyright: ignore[reportMissingImports]
except ModuleNotFoundError as missing:
    raise UserError("the package 'datatrove' is missing", hint="pip install datatrove orjson") from missing

MADE_FOR = b"trove"
FIELDS = ("name", "source", "group")


class ReadText(PipelineStep):
    """The documents of a part of a text's files, as every command of sparsedial reads them."""

    type, name = "READER", "sparsedial text"

    def __init__(self, sources: Sequence[str]) -> None:
        super().__init__()
        self.sources = tuple(sources)

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Tasks get whole files, one after the other."""
        corpus = open_corpus(self.sources)
        first, end = (len(corpus.files) * part // world_size for part in (rank, rank + 1))
        for document in documents(replace(corpus, files=corpus.files[first:end])):
            metadata = {field: getattr(document, field) for field in FIELDS}
            yield TroveDocument(text=document.text.decode(), id=document.id, metadata=metadata)


class SketchText(PipelineStep):
    """Writes of each document its sketch, what splits need to know of it, and the first rule that it breaks."""

    type, name = "DEDUP", "sparsedial sketches"

    def __init__(self, work: str, near: float, families: Sequence[str]) -> None:
        super().__init__()
        self.work, self.near, self.families = work, near, tuple(families)

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        """A file of sketches and one of rows for each task."""
        Path(self.work).mkdir(parents=True, exist_ok=True)
        sketches_at, rows_at = _files(self.work, rank)
        sketches_at.unlink(missing_ok=True)
        work = partial(packed_sketches, bands=bands_for(self.near))
        with closing(SketchFile(sketches_at, MADE_FOR)) as held, open(rows_at, "w") as rows:
            for _, batch in in_order(self._told(data, rows), work, workers=1):
                held.add(batch)

    def _told(self, data: Any, rows: Any) -> Iterator[Document]:
        for given in data:
            document = Document(id=given.id, text=given.text.encode(), **given.metadata)
            known, broken = entry(document), first_broken(document.text, self.families) if self.families else None
            row = [document.id, known.group, known.size, known.checksum, known.fingerprint.hex(), broken]
            rows.write(json.dumps(row) + "\n")
            yield document


class Compare(PipelineStep):
    """Decides which documents are left out: a list for each task of the next stage."""

    type, name = "DEDUP", "sparsedial comparison"

    def __init__(self, work: str, near: float, tasks: int) -> None:
        super().__init__()
        self.work, self.near, self.tasks = work, near, tasks

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """One task.

        Raises: UserError where a document is so large that `select` would cut it.
        """
        parts = [_rows(self.work, task) for task in range(self.tasks)]
        rows = [row for part in parts for row in part]
        entries = [
            Entry(group=group, size=size, checksum=checksum, fingerprint=bytes.fromhex(words))
            for _, group, size, checksum, words, _ in rows
        ]
        if large := cuts(entries):
            raise UserError(f"{next(iter(large))} is so large that it is cut", hint="use `sparsedial select`")
        splits, _ = destinations(entries, assign(group_sizes(entries)))
        reasons = {number: EQUAL_TO_TRAIN for number, split in enumerate(splits) if split is None}
        broken = {number: row[5] for number, row in enumerate(rows) if row[5] and splits[number] == "train"}
        clean = [None if number in broken else split for number, split in enumerate(splits)]
        with ExitStack() as stack:
            files = [
                stack.enter_context(closing(SketchFile(_files(self.work, task)[0], MADE_FOR)))
                for task in range(self.tasks)
            ]
            found = compared(Joined(files), clean, [item.group for item in entries], self.near)
        reasons |= broken | {number: removal.reason for number, removal in found.removed.items()}
        self._write(parts, reasons)

    def _write(self, parts: Sequence[Sequence[Any]], reasons: Mapping[int, str]) -> None:
        number = 0
        for task, part in enumerate(parts):
            left_out = {}
            for row in part:
                if number in reasons:
                    left_out[row[0]] = reasons[number]
                number += 1
            _left_out(self.work, task).write_text(json.dumps(left_out))


class LeaveOut(PipelineStep):
    """Passes the documents on that stay."""

    type, name = "FILTER", "sparsedial choice"

    def __init__(self, work: str) -> None:
        super().__init__()
        self.work = work

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Each with its name as `select` prints it."""
        left_out = json.loads(_left_out(self.work, rank).read_text())
        for given in data:
            self.stat_update("dropped" if given.id in left_out else "forwarded")
            if given.id not in left_out:
                given.id = printable(given.id)
                yield given


class Joined:
    """Several files of sketches as one, in their order."""

    def __init__(self, files: Sequence[SketchFile]) -> None:
        self._files = files
        self._firsts = np.cumsum([0, *(held.documents for held in files)])

    def batches(self, wanted: Sequence[bool]) -> Iterator[list[tuple[int, Sketch]]]:
        """As of one file."""
        for held, first in zip(self._files, self._firsts.tolist(), strict=False):
            for batch in held.batches(wanted[first : first + held.documents]):
                yield [(first + place, sketch) for place, sketch in batch]

    def runs_counted(self, place: int) -> int:
        """As of one file."""
        held, own = self._place(place)
        return held.runs_counted(own)

    def runs(self, place: int) -> np.ndarray:
        """As of one file."""
        held, own = self._place(place)
        return held.runs(own)

    def _place(self, place: int) -> tuple[SketchFile, int]:
        file = int(np.searchsorted(self._firsts, place, side="right")) - 1
        return self._files[file], place - int(self._firsts[file])


def _files(work: str, task: int) -> tuple[Path, Path]:
    return Path(work, f"{task:05d}.sketches"), Path(work, f"{task:05d}.rows.jsonl")


def _left_out(work: str, task: int) -> Path:
    return Path(work, f"{task:05d}.left_out.json")


def _rows(work: str, task: int) -> list[Any]:
    with open(_files(work, task)[1]) as lines:
        return list(map(json.loads, lines))
