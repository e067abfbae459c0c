"""A split's tokens as files: written in one pass, moved into place whole, checked when they are opened."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparsedial.errors import UserError
from sparsedial.records.text import SplitFile
from sparsedial.store import Fault
from sparsedial.text.tokenizer import Tokenizer

BYTE, LENGTH = np.dtype(np.uint8), np.dtype(np.uint32)
MAKE_AGAIN = "delete it and run the command again"


@dataclass(frozen=True)
class Added:
    """Where a document's tokens lie in its shard, without the end token after them."""

    first_token: int
    tokens: int
    kept: bool  # whether decoding the tokens of a held-out text gives it back


class Shard:
    """One split's tokens that are being written; they appear under their name only when closed and whole."""

    def __init__(self, folder: Path, split: str, tokenizer: Tokenizer) -> None:
        self.documents = 0
        self._bytes = 0
        self._tokenizer = tokenizer
        self._ids = Column(folder / f"{split}.bin", tokenizer.dtype)
        # with the tokenizer `bytes` each id is one byte
        needs_lengths = split != "train" and tokenizer.backend is not None
        self._lengths = Column(folder / f"{split}.lengths.bin", LENGTH) if needs_lengths else None

    def __enter__(self) -> Shard:
        return self

    def __exit__(self, *reason: object) -> None:
        for column in filter(None, (self._ids, self._lengths)):
            column.discard()

    def add(self, text: bytes) -> Added:
        """Write one document."""
        if not self.documents:
            self._end_document()  # so that the first document's first token has something before it
        self.documents += 1
        self._bytes += len(text)
        first = self._ids.count
        if self._lengths is None:
            ids, kept = self._tokenizer.encode(text), True
        else:
            ids, lengths = self._tokenizer.encode_with_lengths(text)
            self._lengths.write(lengths)
            kept = self._tokenizer.keeps(text, ids)
        self._ids.write(ids)
        self._end_document()
        return Added(first, len(ids), kept)

    @property
    def tokens(self) -> int:
        """Tokens written so far, end tokens among them."""
        return self._ids.count

    def _end_document(self) -> None:
        self._ids.write(np.array([self._tokenizer.end_token]))
        if self._lengths is not None:
            self._lengths.write(np.zeros(1))

    def close(self) -> SplitFile:
        """Put the files in place and say what they hold."""
        return SplitFile(
            documents=self.documents,
            bytes=self._bytes,
            tokens=self._ids.count,
            sha256=self._ids.close(),
            lengths_sha256=self._lengths and self._lengths.close(),
        )


class Column:
    """A file of numbers of one type, written in order and then moved into place."""

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self._path, self._dtype = path, dtype.newbyteorder("<")
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._digest, self.count = hashlib.sha256(), 0
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._partial, "wb", buffering=2**20)  # noqa: SIM115  # closed by close or discard

    def write(self, values: np.ndarray) -> None:
        """Append numbers."""
        data = values.astype(self._dtype, copy=False).tobytes()
        self.count += len(values)
        self._digest.update(data)
        with _writing(self._path):
            self._file.write(data)

    def close(self) -> str:
        """Move the file into place; gives the digest of its content."""
        with _writing(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._partial, self._path)
        return self._digest.hexdigest()

    def discard(self) -> None:
        """Remove what was not moved into place."""
        with contextlib.suppress(OSError):
            self._file.close()
        discard(self._partial)


def discard(partial: Path) -> None:
    """Remove a file that was not moved into place."""
    with contextlib.suppress(OSError):
        partial.unlink()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}", hint="choose another folder, or free some space"
        ) from error


@dataclass(frozen=True)
class Stored:
    """A file of numbers of one type as `text.json` states it; one of another kind is a file of bytes."""

    path: Path
    sha256: str
    count: int
    dtype: np.dtype = BYTE

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.count * self.dtype.itemsize

    def fault(self, verify: bool) -> Fault | None:
        """Why it cannot be used: missing, of another size or, where `verify`, of another content."""
        try:
            found = self.path.stat().st_size
            if found != self.size:
                problem = f"{self.path}: holds {found} bytes instead of {self.size}: it was cut short"
                return Fault(problem, MAKE_AGAIN)
            if verify and file_sha256(self.path) != self.sha256:
                return Fault(f"{self.path}: its content does not match its digest: it was edited", MAKE_AGAIN)
        except OSError as error:
            return Fault(f"{self.path}: cannot be read: {error.strerror}", MAKE_AGAIN)
        return None

    def mapped(self) -> np.ndarray:
        """The numbers, read-only, mapped from disk."""
        dtype = self.dtype.newbyteorder("<")
        if not self.count:
            return np.empty(0, dtype)
        return np.asarray(np.memmap(self.path, dtype=dtype, mode="r", shape=(self.count,)))


def file_sha256(path: Path) -> str:
    """The digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
