"""Plain files that name each other: digests, atomic JSON, and the folder of runs."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sparsedial.errors import UserError

SCHEMA_VERSION = 1
DIGEST_KEY = "record_digest"


def digest(value: Any) -> str:
    """Hex SHA-256 of a value's canonical JSON; equal values have equal digests."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` in one step: a reader sees the old file or the new one, never half.

    Raises: UserError where the folder is read-only or the disk is full; the old file stays.
    """
    partial = _partial(path)
    with _reported(path, partial):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)


def _partial(path: Path) -> Path:
    if not path.name:
        raise UserError(f"cannot write {path}: it names no file")
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


@contextlib.contextmanager
def _reported(path: Path, partial: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise UserError(
            f"cannot write {path}: {error.strerror}", hint="name another place (--out, --export), or free some space"
        ) from error


def check_writable(path: Path) -> None:
    """Raises: UserError as `write_atomically` would, before the work whose result goes there."""
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder", hint="name a file in it")
    partial = _partial(path)
    with _reported(path, partial):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        partial.unlink()


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record with its schema version and its own digest, atomically.

    Raises: ValueError for NaN or infinity, which no file of ours holds; UserError as `write_atomically`.
    """
    body = {"schema_version": SCHEMA_VERSION, **{key: value for key, value in record.items() if key != DIGEST_KEY}}
    body[DIGEST_KEY] = digest(body)
    write_atomically(path, (json.dumps(body, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises: UserError where the file is missing, truncated, edited or of another schema.
    """
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not readable as JSON ({error})", hint="it was cut short; run the command again"
        ) from error
    if not isinstance(record, dict) or record.get("schema_version") != SCHEMA_VERSION:
        raise UserError(f"{path}: not a sparsedial file of schema {SCHEMA_VERSION}")
    stated = record.pop(DIGEST_KEY, None)
    if stated != digest(record):
        raise UserError(
            f"{path}: its content does not match its digest", hint="it was edited; delete it to have it made again"
        )
    return record


def check_fields(record: Mapping[str, Any], cls: type, place: str) -> None:
    """Raises: UserError where a record lacks a field of the dataclass `cls`: it is another thing, or an older one."""
    needed = [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in needed if name not in record]
    if missing:
        raise UserError(
            f"{place}: no {cls.__name__.lower()} of this version: it lacks {', '.join(missing[:3])}",
            hint="name another file, or make it again",
        )


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a folder for one process; the lock goes with the process, however it ends.

    Raises: UserError where another process holds it or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(folder / ".lock", "w")  # noqa: SIM115  # held open on purpose: closing it frees the lock
    except OSError as error:
        raise UserError(
            f"cannot write in {folder}: {error.strerror}", hint="choose another folder with --out"
        ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder} is in use by another sparsedial", hint="wait for it, or choose another --out"
            ) from error
        yield


def in_use(folder: Path) -> bool:
    """Whether a living process holds a folder's `lock`."""
    try:
        handle = open(folder / ".lock")  # noqa: SIM115
    except OSError:
        return False
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class RunStore:
    """A folder of runs, one sub-folder each, named by the hash of the run's inputs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, run_hash: str) -> Path:
        """The run's own folder: `run.json`, `metrics.jsonl`, and what training leaves there."""
        return self.folder / run_hash[:16]

    def unfinished(self, run_hash: str) -> Path:
        """Where the state of a run lies until it ends."""
        return self.path(run_hash) / "unfinished"

    def trunk(self, trunk_hash: str) -> Path:
        """Where the state lies that runs of several lengths go on from."""
        return self.folder / "trunks" / trunk_hash[:16]

    def find(self, run_hash: str) -> dict[str, Any] | None:
        """The finished record of a run, or None where there is none that can be trusted."""
        path = self.path(run_hash) / "run.json"
        if not path.exists():
            return None
        try:
            record = read_json(path)
        except UserError:
            return None  # truncated or edited: the run is done again rather than believed
        return record if record.get("hash") == run_hash else None

    def read(self, run_hash: str) -> dict[str, Any]:
        """The record of a run that was written just now.

        Raises: UserError where it is not there or damaged.
        """
        return read_json(self.path(run_hash) / "run.json")

    def write(self, run_hash: str, record: Mapping[str, Any]) -> None:
        """Keep a finished run's record."""
        write_json(self.path(run_hash) / "run.json", {**record, "hash": run_hash})
