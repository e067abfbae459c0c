"""Where text comes from: files, folders, or the sources of the running interpreter's standard library."""

from __future__ import annotations

import os
import platform
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.records.selection import SELECT_FILE
from sparsedial.store import is_ours
from sparsedial.text.files import plain_name, reading, suffix_of
from sparsedial.units import count_words

SUFFIXES = (".txt", ".md", ".rst", ".py", ".jsonl")  # what is read in a folder; each also with .gz
OTHER_SUFFIXES = (".ndjson", ".jl", ".json", ".csv", ".tsv", ".parquet")  # where a folder has none of those
LEFT_OUT = frozenset({"test", "idlelib", "encodings", "pydoc_data"})  # top-level names of the standard library


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

    Raises: UserError for a source that is missing, unreadable, not a file, a folder without text, or a selection.
    """
    if not sources:
        return standard_library()
    files: list[File] = []
    left_out = 0
    for source in sources:
        path = Path(source).expanduser()
        with reading(path):
            if is_selection(path):
                raise UserError(
                    f"{path}: a selection is read as a text to train on, alone and nowhere else",
                    hint="here, name the text that it was selected from",
                )
            if path.is_dir():
                found, others = _walk(path)
                files += found
                left_out += others
            else:
                path.stat()  # so that a missing file is found now, under its own name
                files.append(File(path=path, name=plain_name(path.name)))
    return Corpus(files=tuple(_with_copies(files)), sources=tuple(map(str, sources)), left_out_files=left_out)


def is_selection(folder: Path) -> bool:
    """Whether a folder is one that `select` wrote."""
    file = folder / SELECT_FILE
    return os.path.isfile(file) and is_ours(file)  # a folder that cannot be read is none


def _with_copies(files: list[File]) -> Iterator[File]:
    """The files, with those of the same name (in two folders, or packed and not) numbered."""
    copies: dict[str, int] = {}
    for file in files:
        copies[file.name] = copies.get(file.name, 0) + 1
        yield replace(file, copy=copies[file.name])


def _walk(folder: Path) -> tuple[list[File], int]:
    paths = sorted(_visible_files(folder))
    chosen = _of(paths, SUFFIXES) or _of(paths, OTHER_SUFFIXES)
    if not chosen:
        raise UserError(
            f"{folder}: no text in its {count_words(len(paths), 'file')}" if paths else f"{folder}: it holds no file",
            hint=f"a folder's text is read from {', '.join(SUFFIXES)}, each also with .gz, or where there are none from"
            f" {', '.join(OTHER_SUFFIXES)}; name other files one by one",
        )
    files = [File(path=path, name=plain_name(path.relative_to(folder).as_posix())) for path in chosen]
    return files, len(paths) - len(files)


def _of(paths: list[Path], suffixes: tuple[str, ...]) -> list[Path]:
    return [path for path in paths if suffix_of(path) in suffixes]


def _visible_files(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        yield from (Path(root, name) for name in names if not name.startswith("."))


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
