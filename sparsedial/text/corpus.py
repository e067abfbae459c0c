"""Where text comes from: files, folders, or the sources of the running interpreter's standard library."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import json
import os
import platform
import sysconfig
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from sparsedial.errors import UserError

SUFFIXES = (".txt", ".md", ".rst", ".py", ".jsonl")  # each also with .gz
LEFT_OUT = frozenset({"test", "idlelib", "encodings", "pydoc_data"})  # top-level names of the standard library
PART_BYTES = 2**20  # the most that is held of a plain file at once; a longer one comes in parts
BLOCK_BYTES = 2**18


@dataclass(frozen=True, kw_only=True)
class Document:
    """One piece of text; documents of one group are always in the same split."""

    id: str  # unique in the corpus
    name: str  # the split depends on it; files of the same name in two folders share it
    source: str  # the file it came from
    group: str
    text: bytes  # UTF-8, not blank, without NUL


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of a corpus; `group` None makes each document of it its own group."""

    path: Path
    name: str  # the same wherever the corpus lies, packed or not; the split depends on it
    group: str | None = None
    copy: int = 1  # which file of this name it is

    @property
    def source(self) -> str:
        """The name, made unique among files of the same name."""
        return self.name if self.copy == 1 else f"{self.name}~{self.copy}"


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The files of a text in the order in which they are read; each use reads them again, none is held in memory."""

    files: tuple[File, ...]
    sources: tuple[str, ...]  # as the user named them
    python_version: str | None = None  # where it is the standard library
    left_out_files: int = 0  # in folders: files whose suffix is not one that is read


def open_corpus(sources: tuple[str, ...]) -> Corpus:
    """The corpus of these files and folders, or the standard library where none is named.

    Raises: UserError for a source that is missing, unreadable, not a file, or a folder without text.
    """
    if not sources:
        return standard_library()
    files: list[File] = []
    left_out = 0
    for source in sources:
        path = Path(source).expanduser()
        with _reading(path):
            if path.is_dir():
                found, others = _walk(path)
                files += found
                left_out += others
            else:
                path.stat()  # so that a missing file is found now, under its own name
                files.append(File(path=path, name=_plain_name(path.name)))
    return Corpus(files=tuple(_with_copies(files)), sources=tuple(map(str, sources)), left_out_files=left_out)


def _with_copies(files: list[File]) -> Iterator[File]:
    """The files, with those of the same name (in two folders, or packed and not) numbered."""
    copies: dict[str, int] = {}
    for file in files:
        copies[file.name] = copies.get(file.name, 0) + 1
        yield replace(file, copy=copies[file.name])


def _walk(folder: Path) -> tuple[list[File], int]:
    paths = sorted(_visible_files(folder))
    files = [
        File(path=path, name=_plain_name(path.relative_to(folder).as_posix()))
        for path in paths
        if _suffix(path) in SUFFIXES
    ]
    if not files:
        raise UserError(
            f"{folder}: no text in its {len(paths)} files",
            hint=f"a folder's text is read from {', '.join(SUFFIXES)}, each also with .gz; name other files one by one",
        )
    return files, len(paths) - len(files)


def _visible_files(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        yield from (Path(root, name) for name in names if not name.startswith("."))


def _plain_name(name: str) -> str:
    """The name without `.gz`; the same in every locale, since documents are told apart by it."""
    return os.fsencode(name).decode(errors="surrogateescape").removesuffix(".gz")


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


def standard_library() -> Corpus:
    """The sources of the running interpreter's standard library, grouped by top-level module or package.

    Leaves out `LEFT_OUT`, whatever is not a module (site-packages among them), and the generated `_sysconfigdata`,
    which holds the paths of the machine that built the interpreter.

    Raises: UserError where the interpreter came without its sources.
    """
    root = Path(sysconfig.get_path("stdlib"))
    files: list[File] = []
    if root.is_dir():
        for entry in sorted(root.iterdir()):
            module = entry.stem if entry.suffix == ".py" else entry.name
            if not module.isidentifier() or module in LEFT_OUT or module.startswith("_sysconfigdata"):
                continue
            paths = sorted(entry.rglob("*.py")) if entry.is_dir() else [entry] * (entry.suffix == ".py")
            files += [File(path=path, name=path.relative_to(root).as_posix(), group=module) for path in paths]
    if not files:
        raise UserError(f"no sources of the standard library in {root}", hint="name a text file or folder instead")
    return Corpus(files=tuple(files), sources=(), python_version=platform.python_version())


def documents(corpus: Corpus, cut: Mapping[str, int] | None = None) -> Iterator[Document]:
    """Every document of the corpus in order; blank ones are skipped.

    `cut` maps a group to the size in bytes of the contiguous parts that it is cut into; each becomes a group.
    Standard-library files in other encodings than UTF-8 are skipped as well: those are test fixtures.

    Raises: UserError naming the file, and the line or byte, of text that is binary, not UTF-8, truncated or unreadable.
    """
    cut = cut or {}
    for file in corpus.files:
        try:
            yield from _jsonl(file, cut) if _suffix(file.path) == ".jsonl" else _plain(file, cut)
        except NotUtf8:
            if corpus.python_version is None:
                raise


class NotUtf8(UserError):
    """Text in another encoding."""


def _plain(file: File, cut: Mapping[str, int]) -> Iterator[Document]:
    with _reading(file.path), _open(file.path) as stream:
        blocks = _without_mark(iter(lambda: stream.read(BLOCK_BYTES), b""))
        yield from _parts(file, "", blocks, cut, str(file.path))


def _without_mark(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The blocks without UTF-8's byte-order mark, which says how to read and is not text."""
    first = next(blocks, b"")
    yield first.removeprefix(codecs.BOM_UTF8)
    yield from blocks


def _jsonl(file: File, cut: Mapping[str, int]) -> Iterator[Document]:
    with _reading(file.path), _open(file.path) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            where = f"{file.path}, line {number}"
            yield from _parts(file, f":{number}", iter([_text_of(line, where)]), cut, where)


def _text_of(line: bytes, where: str) -> bytes:
    try:
        record = json.loads(line)
    except UnicodeDecodeError as error:
        raise _not_utf8(line, error, where, 0) from error
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error})", hint="a .jsonl file holds one JSON object per line") from error
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise UserError(f"{where}: no field 'text' with a string", hint='each line is like {"text": "…"}')
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: character {error.start} of 'text' is half of a surrogate pair") from error


def _parts(file: File, line: str, blocks: Iterator[bytes], cut: Mapping[str, int], where: str) -> Iterator[Document]:
    group, offset = file.group or file.name + line, 0
    for number, part in enumerate(split_parts(blocks, min(cut.get(group, PART_BYTES), PART_BYTES))):
        _check_text(part, where, offset)
        offset += len(part)
        if part.strip():
            tail = f"{line}#{number}" if number else line
            yield Document(
                id=file.source + tail,
                name=file.name + tail,
                source=file.source,
                group=f"{file.name}{line}#{number}" if group in cut else group,
                text=part,
            )


def split_parts(blocks: Iterator[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in parts of about `size`, cut after a paragraph, else a line, else a word, else a character.

    A part is between `size` / 2 and `size` long; the last may be shorter.
    """
    held = b""
    for block in blocks:
        held += block
        while len(held) > size:
            end = _cut_position(held, size)
            yield held[:end]
            held = held[end:]
    if held:
        yield held


def _cut_position(held: bytes, size: int) -> int:
    for mark in (b"\n\n", b"\n", b" "):
        position = held.rfind(mark, size // 2, size)
        if position >= 0:
            return position + len(mark)
    end = size
    while end > max(1, size - 3) and held[end] & 0xC0 == 0x80:  # inside a character of UTF-8
        end -= 1
    return end


def _check_text(part: bytes, where: str, offset: int) -> None:
    if (nul := part.find(b"\0")) >= 0:
        raise UserError(f"{where}: binary, not text: a NUL byte at offset {offset + nul}", hint="leave this file out")
    try:
        part.decode()
    except UnicodeDecodeError as error:
        raise _not_utf8(part, error, where, offset) from error


def _not_utf8(data: bytes, error: UnicodeDecodeError, where: str, offset: int) -> NotUtf8:
    byte = data[error.start] if error.start < len(data) else 0
    return NotUtf8(
        f"{where}: not UTF-8: byte 0x{byte:02x} at offset {offset + error.start}",
        hint="convert it, for example with: iconv -f latin1 -t utf-8",
    )


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    if not path.is_file():  # reading a pipe or a device could block for ever
        path.stat()
        raise UserError(f"{path}: not a file")
    return gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file or folder") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not whole gzip data ({error})", hint="it was cut short: copy it again") from error
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from error
