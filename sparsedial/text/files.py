"""A file's bytes as UTF-8: packed or not, and in UTF-16 or UTF-32 where a byte-order mark says so."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from sparsedial.errors import UserError

BLOCK_BYTES = 2**18
MARKS = {  # the longer ones first: UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def plain_name(name: str) -> str:
    """A file's name without .gz; the same in every locale, since documents are told apart by it."""
    return os.fsencode(name).decode(errors="surrogateescape").removesuffix(".gz")


def suffix_of(path: Path) -> str:
    """The ending that says what a file holds, in lower case, without .gz."""
    return Path(path.stem).suffix.lower() if is_packed(path) else path.suffix.lower()


def is_packed(path: Path) -> bool:
    """Whether it is a .gz file."""
    return path.suffix.lower() == ".gz"


def blocks_of(path: Path) -> Iterator[bytes]:
    """The file in blocks, without its byte-order mark, which says how to read and is not text.

    Raises: UserError where it is missing, unreadable, damaged, or not in the encoding of its mark.
    """
    with _opened(path) as (stream, encoding):
        if encoding is None:
            first = stream.read(BLOCK_BYTES)
            yield first.removeprefix(codecs.BOM_UTF8)
            yield from iter(lambda: stream.read(BLOCK_BYTES), b"")
        else:
            with io.TextIOWrapper(stream, encoding, newline="\n") as text:
                yield from (block.encode() for block in iter(lambda: text.read(BLOCK_BYTES), ""))


def lines_of(path: Path) -> Iterator[bytes]:
    """The file's lines, each with its newline; only that ends a line.

    Raises: UserError as `blocks_of`.
    """
    with _opened(path) as (stream, encoding):
        if encoding is None:
            yield from stream
        else:
            with io.TextIOWrapper(stream, encoding, newline="\n") as text:
                yield from (line.encode() for line in text)


@contextlib.contextmanager
def opened_text(path: Path) -> Iterator[io.TextIOWrapper]:
    """The file as characters, newlines as they are; a byte that is not UTF-8 becomes half of a surrogate pair.

    Raises: UserError as `blocks_of`.
    """
    with _opened(path) as (stream, encoding):
        errors = "surrogateescape" if encoding is None else "strict"
        with io.TextIOWrapper(stream, encoding or "utf-8-sig", errors=errors, newline="") as text:
            yield text


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, str | None]]:
    """The file and the encoding that its mark names, None for UTF-8."""
    with reading(path), _open(path) as stream:
        head = stream.peek(4)[:4]
        encoding = next((name for mark, name in MARKS.items() if head.startswith(mark)), None)
        try:
            yield cast("BinaryIO", stream), encoding
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}: begins with the mark of {error.encoding.upper()} but is not in it ({error.reason})",
                hint="it was cut short or joined from several files: convert each of them to UTF-8",
            ) from error


def _open(path: Path) -> io.BufferedReader | gzip.GzipFile:
    if not path.is_file():  # reading a pipe or a device could block for ever
        path.stat()
        raise UserError(f"{path}: not a file")
    return gzip.open(path) if is_packed(path) else open(path, "rb")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what can go wrong while a file is read into errors that name it."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file or folder") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        never = "Not a gzipped file" in str(error)
        hint = "it never was gzip: give it its own ending" if never else "it was cut short: copy it again"
        raise UserError(f"{path}: not whole gzip data ({error})", hint=hint) from error
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from error
