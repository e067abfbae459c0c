"""Sketches of a text's documents in a file, batch by batch in the order of the corpus; what it holds is made once.

A process that is killed leaves it. The next one that wants the same goes on after the last whole batch.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import zlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sparsedial.errors import UserError
from sparsedial.selection.sketch import DIGEST_BYTES, Sketch

HEAD = struct.Struct("<IIQ")  # of a batch: documents, checksum and bytes of what follows
HASH_BYTES = 8


def packed(sketches: Sequence[Sketch]) -> bytes:
    """A batch of sketches as it lies in the file: runs of each document counted, digests, keys, runs."""
    counts = np.array([len(sketch.runs) for sketch in sketches], np.uint32)
    parts = [counts.tobytes(), *(sketch.digest for sketch in sketches)]
    parts += [sketch.keys.tobytes() for sketch in sketches]
    parts += [sketch.runs.tobytes() for sketch in sketches]
    body = b"".join(parts)
    return HEAD.pack(len(sketches), zlib.crc32(body), len(body)) + body


class SketchFile:
    """The sketches that a file holds, and those that are added; documents by their place in it."""

    def __init__(self, path: Path, made_for: bytes) -> None:
        """Open a file; what it holds is dropped unless it was `made_for` the same: a text and settings of sketches.

        Raises: UserError where it cannot be written, or another process writes it.
        """
        self._path = path
        with self._on_disk():
            self._file: BinaryIO = open(path, "a+b")  # noqa: SIM115  # closed by close
            self._lock()
        self._counts, self._runs_at = array("I"), array("q")  # of each document
        self._batches: list[tuple[int, int, int]] = []  # first document, documents, and where the batch's body begins
        self._end = len(made_for)
        try:
            with self._on_disk():
                self._begin(made_for)
        except UserError:
            self.remove()
            self.close()
            raise

    def _begin(self, made_for: bytes) -> None:
        """Take what the file holds for the same, and drop the rest."""
        self._file.seek(0)
        if self._file.read(len(made_for)) != made_for:
            self._file.truncate(0)
            self._file.write(made_for)
        while self._known():
            pass
        self._file.truncate(self._end)

    @property
    def documents(self) -> int:
        """How many sketches it holds."""
        return len(self._counts)

    def add(self, batch: bytes) -> None:
        """Add a batch.

        Raises: UserError where the disk is full.
        """
        with self._on_disk():
            self._file.write(batch)
            self._file.flush()
        self._note(batch[: HEAD.size + 4 * HEAD.unpack_from(batch)[0]])

    def _known(self) -> bool:
        """Take a further batch that the file holds; whether there was a whole one."""
        data = os.pread(self._file.fileno(), HEAD.size, self._end)
        if len(data) < HEAD.size:
            return False
        _, checksum, size = HEAD.unpack(data)
        body = os.pread(self._file.fileno(), size, self._end + HEAD.size)
        if len(body) < size or zlib.crc32(body) != checksum:
            return False
        self._note(data + body)
        return True

    def _note(self, begin: bytes) -> None:
        """Keep where a batch's documents lie; `begin` is its head and its counts, at least."""
        count, _, size = HEAD.unpack_from(begin)
        counts = np.frombuffer(begin, np.uint32, count, HEAD.size)
        body = self._end + HEAD.size
        self._batches.append((len(self._counts), count, body))
        self._end = body + size
        runs_at = self._end - HASH_BYTES * int(counts.sum(dtype=np.int64))
        self._counts.frombytes(counts.tobytes())
        ends = np.cumsum(counts, dtype=np.int64)
        self._runs_at.frombytes((runs_at + HASH_BYTES * (ends - counts)).tobytes())

    def batches(self, wanted: Sequence[bool]) -> Iterator[list[tuple[int, Sketch]]]:
        """The documents that are wanted, batch by batch, with their places."""
        for first, count, body in self._batches:
            places = [first + at for at in range(count) if wanted[first + at]]
            if places:
                yield list(zip(places, self._read(first, count, body, places), strict=True))

    def _read(self, first: int, count: int, body: int, places: Sequence[int]) -> Iterator[Sketch]:
        fixed = self._runs_at[first] - body
        data = os.pread(self._file.fileno(), fixed, body)[4 * count :]
        keys = np.frombuffer(data, np.uint64, offset=count * DIGEST_BYTES).reshape(count, -1)
        for place in places:
            at = place - first
            digest = data[at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES]
            yield Sketch(digest, self.runs(place), keys[at])

    def runs_counted(self, place: int) -> int:
        """How many runs a document has."""
        return self._counts[place]

    def runs(self, place: int) -> np.ndarray:
        """The runs of a document."""
        data = os.pread(self._file.fileno(), HASH_BYTES * self._counts[place], self._runs_at[place])
        return np.frombuffer(data, np.uint64)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise UserError(
                f"{self._path} is in use by another sparsedial", hint="wait for it, or name another folder", field="out"
            ) from error

    def close(self) -> None:
        """Close the file, and leave it."""
        with contextlib.suppress(OSError):  # of a full disk, which was said before
            self._file.close()

    def remove(self) -> None:
        """Remove the file; nothing more is read from it."""
        self._path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _on_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            hint = "choose another folder, or free some space"
            raise UserError(f"cannot write {self._path}: {error.strerror}", hint=hint, field="out") from error


def sketches_of(out: Path) -> Path:
    """Where the sketches lie while a folder is made: beside it, so that they outlive a process that is killed."""
    folder = out.resolve()
    return folder.with_name(f".{folder.name}.sketches")
