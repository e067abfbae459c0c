"""Rows of a task in local files of JSON lines, as they are or packed with gzip, each with its place."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from sparsedial.errors import UserError

Row: TypeAlias = dict[str, Any]
ENDINGS = (".jsonl", ".jsonl.gz")
KINDS = {bool: "true or false", str: "a text", list: "a list", dict: "an object", int: "a number", float: "a number"}


@dataclass(frozen=True)
class Rows:
    """Rows of one split, and the file and line of each."""

    rows: Sequence[Row]
    places: Sequence[str]

    def where(self, field: str, value: str) -> Rows:
        """Those with this value."""
        kept = [number for number, row in enumerate(self.rows) if row.get(field) == value]
        return Rows([self.rows[number] for number in kept], [self.places[number] for number in kept])


def read(paths: Sequence[Path]) -> Rows:
    """The rows of files, one file after the other.

    Raises: UserError for a file that is damaged or empty, or a line that is not as the others of its file.
    """
    rows, places = [], []
    for path in paths:
        before = len(rows)
        for line, row in _parsed(path):
            rows.append(row)
            places.append(f"{path}:{line}")
        if len(rows) == before:
            raise UserError(f"{path}: holds no items")
        _require_alike(rows[before:], places[before:])
    return Rows(rows, places)


def digest(paths: Iterable[Path]) -> str:
    """Hex SHA-256 over the bytes of files, one after the other."""
    found = hashlib.sha256()
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()


def _parsed(path: Path) -> Iterator[tuple[int, Row]]:
    """Each row with the number of its line; blank lines hold none."""
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:  # also of bytes that are no UTF-8
            raise UserError(f"{path}:{number}: not JSON ({error})", hint="a line holds one JSON object") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: not an object but {_kind(row)}", hint="a line holds one JSON object")
        yield number, row


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            yield from file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: damaged or cut short ({error})", hint="copy or unpack it again") from error
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror})") from error


def _require_alike(rows: Sequence[Row], places: Sequence[str]) -> None:
    """Raises: UserError for a row without a field that others have, or with another kind of value in it."""
    fields = {name: value for row in reversed(rows) for name, value in row.items() if value is not None}
    for row, place in zip(rows, places, strict=True):
        for name, first in fields.items():
            if name not in row:
                raise UserError(f"{place}: the field '{name}' is missing", hint="every line has the same fields")
            value = row[name]
            if value is not None and _kind(value) != _kind(first):
                raise UserError(f"{place}: '{name}' is {_kind(value)}, and {_kind(first)} in the lines before")


def _kind(value: object) -> str:
    return KINDS.get(type(value), "null")
