"""Plain files that name each other: digests, JSON that is written whole or not at all, a lock on a folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from sparsedial.errors import UserError

SCHEMA_VERSION = 1
DIGEST_KEY = "record_digest"
LOCK = ".lock"
FOLDER_RECORDS = ("study.json", "settings.json")  # of `study` and of `train`
SCHEMA_MARK = b'"schema_version"'


def digest(value: Any) -> str:
    """Hex SHA-256 of a value's canonical JSON; equal values have equal digests."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomically(path: Path, data: bytes, *, private: bool = False) -> None:
    """Replace `path` in one step: a reader sees the old file or the new one, never a part of one.

    Nobody but its owner may read a `private` one.

    Raises: UserError where the folder is read-only or the disk is full; the old file stays.
    """
    with replacing(path) as partial:
        mode = 0o600 if private else 0o666
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The name of a file to be written, which takes the place of `path` in one step at the end.

    Raises: UserError as `write_atomically`.
    """
    partial = _partial(path)
    with _reported(path, partial):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)


@contextlib.contextmanager
def pending(path: Path) -> Iterator[Path]:
    """The name of a temporary file, which takes the place of `path` at the end where it was written.

    Where something fails it is removed, and `path` stays as it is.

    Raises: UserError where the old file cannot be replaced.
    """
    partial = _partial(path)
    try:
        yield partial
        if partial.exists():
            with _reported(path, partial):
                os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    if not path.name:
        raise UserError(f"cannot write {path}: not the name of a file")
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


@contextlib.contextmanager
def _reported(path: Path, partial: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise UserError(
            f"cannot write {path}: {error.strerror}", hint="choose another folder (<out>, <export>), or free some space"
        ) from error


def check_writable(path: Path) -> None:
    """Raises: UserError as `write_json` would, before the work whose result goes there."""
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder", hint="name a file in it")
    _require_ours(path)
    partial = _partial(path)
    with _reported(path, partial):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        partial.unlink()


def write_json(path: Path, record: Mapping[str, Any], *, private: bool = False) -> None:
    """Write a record with its schema version and its own digest, atomically; `private` as `write_atomically`.

    Raises: ValueError for NaN or infinity, which our files never hold; UserError as `write_atomically`, or where a file
    of that name is not one of ours.
    """
    _require_ours(path)
    body = {"schema_version": SCHEMA_VERSION, **{key: value for key, value in record.items() if key != DIGEST_KEY}}
    body[DIGEST_KEY] = digest(body)
    write_atomically(path, (json.dumps(body, indent=1, allow_nan=False) + "\n").encode(), private=private)


def _require_ours(path: Path) -> None:
    """Raises: UserError where a file is there that no command of ours wrote."""
    if not is_ours(path):
        raise UserError(
            f"{path} exists and is not a file of sparsedial's", hint="name another file or folder, or move it away"
        )


def is_ours(path: Path) -> bool:
    """Whether writing a record there destroys nothing: no file, an empty one, or one with our schema version."""
    try:
        with open(path, "rb") as file:
            start = file.read(64)
            return not start or SCHEMA_MARK in start or SCHEMA_MARK in start + file.read()
    except OSError:  # missing, a folder, or unreadable: writing says so
        return True


@dataclass(frozen=True)
class Fault:
    """Why a file cannot be used, and the way out."""

    problem: str
    hint: str | None = None

    def error(self) -> UserError:
        """The same as an error to be raised."""
        return UserError(self.problem, self.hint)


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises: UserError where the file is missing, truncated, edited or of another schema.
    """
    found = try_json(path)
    if isinstance(found, Fault):
        raise found.error()
    return found


def try_json(path: Path) -> dict[str, Any] | Fault:
    """What `read_json` returns, or why it fails."""
    found = try_edited_json(path)
    if isinstance(found, Fault):
        return found
    record, edited = found
    if edited:
        return Fault(
            f"{path}: its content does not match its digest", "it was edited; delete it and run the command again"
        )
    return record


def try_edited_json(path: Path) -> tuple[dict[str, Any], bool] | Fault:
    """A file of ours that people may edit, and whether it was edited; or why it cannot be read."""
    try:
        record = parse_json(path.read_bytes())
    except FileNotFoundError:
        return Fault(f"{path}: no such file")
    except OSError as error:
        return Fault(f"{path}: cannot be read: {error.strerror or error}")
    except json.JSONDecodeError as error:
        cut_short = error.doc.lstrip().startswith("{")  # as all of ours begin
        hint = "it was cut short; run the command again" if cut_short else None
        return Fault(f"{path}: not readable as JSON ({error})", hint)
    except ValueError as error:
        return Fault(f"{path}: not readable as JSON ({error})")
    if not isinstance(record, dict) or record.get("schema_version") != SCHEMA_VERSION:
        return Fault(f"{path}: not a sparsedial file of schema {SCHEMA_VERSION}")
    stated = record.pop(DIGEST_KEY, None)
    return record, stated != digest(record)


def parse_json(data: bytes) -> Any:
    """The value of a JSON text in any Unicode encoding.

    Raises: ValueError for what is not JSON, NaN, infinity, a number too large for a float, or very deep nesting.
    """
    try:
        return json.loads(data, parse_constant=_no_number, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"it holds {word}, which is not a number")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def require_ours(folder: Path, names: Iterable[str], force: bool) -> None:
    """Refuse a folder that holds files of someone else; with `force`, only one where our `names` are taken.

    A folder is ours where an earlier command left its lock or its record, or where only records of ours are.

    Raises: UserError with what is there.
    """
    if not folder.is_dir() or any(_left_by_us(folder / name) for name in (LOCK, *FOLDER_RECORDS)):
        return
    found = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    others = [path.name for path in found if path.is_dir() or not is_ours(path)]
    taken = [name for name in names if name in others]
    if taken and force:
        raise UserError(
            f"{folder} holds a {taken[0]} that is not sparsedial's", hint="move it away, or choose another <out>"
        )
    if others and not force:
        raise UserError(
            f"{folder} holds other files, such as {others[0]}",
            hint="choose another <out>, or add <force> to write there",
        )


def require_free(out: Path) -> None:
    """Raises: UserError for a folder that holds something or cannot be replaced, or a file."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        held = "holds files" if out.is_dir() else "is a file"
        raise UserError(f"{out} {held}, and nothing is overwritten", hint="name a new folder", field="out")
    if out.resolve().is_mount():  # as that of a container's volume
        hint = f"name a new folder in it, like {out / 'result'}"
        raise UserError(f"{out} is where a disk is mounted, so no other folder can take its place", hint, field="out")


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that gets the name when it is complete, and is removed where something fails.

    One process at a time writes it. What a killed one left is removed. A folder that holds something is replaced, but
    not what has come into one that held nothing.

    Raises: UserError where it cannot be written, or another process writes it.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        replaces = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        with _held(folder, partial):
            try:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                yield partial
                if replaces:
                    shutil.rmtree(folder, ignore_errors=True)
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror or error}", hint="choose another folder, or free some space"
        ) from error


@contextlib.contextmanager
def _held(folder: Path, partial: Path) -> Iterator[None]:
    """A lock beside a folder that is being written, for one process; its file goes with it.

    Raises: UserError where another process holds it.
    """
    file = partial.with_name(f"{partial.name}.lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with open(file, "w") as handle:
            _take(handle, folder)
            if not _is(file, handle):
                continue  # the process that made it has just ended, and removed it
            try:
                yield
            finally:
                file.unlink(missing_ok=True)
            return


def _is(file: Path, handle: IO[str]) -> bool:
    """Whether a file is still the one that was opened."""
    try:
        return os.path.samefile(file, handle.fileno())
    except FileNotFoundError:
        return False


def _left_by_us(path: Path) -> bool:
    """Whether a file is a lock or a record of ours."""
    try:
        return path.is_file() and (path.stat().st_size == 0 if path.name == LOCK else SCHEMA_MARK in path.read_bytes())
    except OSError:
        return False


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Lock a folder for one process; the lock is released when the process ends, in whatever way.

    Raises: UserError where another process holds it or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(folder / LOCK, "w")  # noqa: SIM115  # held open on purpose: closing it frees the lock
    except OSError as error:
        problem = f"cannot write in {folder}: {error.strerror}"
        raise UserError(
            f"{folder} is a file" if folder.is_file() else problem, hint="choose another folder with <out>"
        ) from error
    with handle:
        _take(handle, folder)
        yield


def _take(handle: IO[str], folder: Path) -> None:
    """Raises: UserError where another process holds the lock of a folder."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"{folder} is in use by another sparsedial", hint="wait for it, or choose another <out>"
        ) from error


def in_use(folder: Path) -> bool:
    """Whether a living process holds a folder's `lock`."""
    try:
        handle = open(folder / LOCK)  # noqa: SIM115
    except OSError:
        return False
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
