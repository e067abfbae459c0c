"""A split's tokens as files: written in one pass, put in place whole, checked when they are opened."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsedial.errors import UserError
from sparsedial.text.tokenizer import Tokenizer

MAKE_AGAIN = "delete it and run the command again"


@dataclass(frozen=True)
class Added:
    """Where a document's tokens lie in its shard, its end token behind them not counted."""

    first_token: int
    tokens: int
    kept: bool  # whether a held-out text comes back from its tokens as it was


class Shard:
    """One split's tokens on their way to disk; in place only once closed, and never half."""

    def __init__(self, folder: Path, split: str, tokenizer: Tokenizer) -> None:
        self.documents = 0
        self._bytes = 0
        self._tokenizer = tokenizer
        self._ids = Column(folder / f"{split}.bin", tokenizer.dtype)
        # the id of a byte says how long it is
        needs_lengths = split != "train" and tokenizer.backend is not None
        self._lengths = Column(folder / f"{split}.lengths.bin", np.dtype(np.uint32)) if needs_lengths else None

    def __enter__(self) -> Shard:
        return self

    def __exit__(self, *reason: object) -> None:
        for column in filter(None, (self._ids, self._lengths)):
            column.discard()

    def add(self, text: bytes) -> Added:
        """Write one document."""
        if not self.documents:
            self._end_document()  # so that the first document's first token is predicted from something
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

    def _end_document(self) -> None:
        self._ids.write(np.array([self._tokenizer.end_token]))
        if self._lengths is not None:
            self._lengths.write(np.zeros(1))

    def close(self) -> dict[str, Any]:
        """Put the files in place and say what they hold."""
        facts = {"documents": self.documents, "bytes": self._bytes, **self._ids.close(), "lengths_sha256": None}
        if self._lengths is not None:
            facts["lengths_sha256"] = self._lengths.close()["sha256"]
        return facts


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

    def close(self) -> dict[str, Any]:
        """Move the file into place."""
        with _writing(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._partial, self._path)
        return {"tokens": self.count, "sha256": self._digest.hexdigest()}

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
            f"cannot write {path}: {error.strerror}", hint="choose another folder with --out, or free some space"
        ) from error


def mapped(path: Path, dtype: np.dtype, count: int, sha256: str, verify: bool) -> np.ndarray:
    """A stored column, read-only.

    Raises: UserError naming the file that is missing, of another length or, where `verify`, of another content.
    """
    dtype = dtype.newbyteorder("<")
    check_file(path, count * dtype.itemsize, sha256, verify)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r", shape=(count,))) if count else np.empty(0, dtype)


def check_file(path: Path, size: int, sha256: str, verify: bool) -> None:
    """Raises: UserError where a stored file is missing, of another size or, where `verify`, of another content."""
    try:
        found = path.stat().st_size
        if found != size:
            raise UserError(f"{path}: holds {found} bytes instead of {size}: it was cut short", hint=MAKE_AGAIN)
        if verify and file_sha256(path) != sha256:
            raise UserError(f"{path}: its content does not match its digest: it was edited", hint=MAKE_AGAIN)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}", hint=MAKE_AGAIN) from error


def file_sha256(path: Path) -> str:
    """The digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
