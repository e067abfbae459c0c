"""A record: a frozen, typed value whose fields are JSON keys. Errors when reading name the file and the field."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import msgspec

from sparsedial.errors import UserError
from sparsedial.records.html import html_table
from sparsedial.records.kinds import kind_in
from sparsedial.shape.shape import Shape
from sparsedial.store import Fault, try_json, write_atomically, write_json

T = TypeVar("T")
WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table of names and values",
    "null": "null",
}
NAMED = re.compile(r"Object (missing required|contains unknown) field `(\w+)`")
OTHER_FILE_HINT = "it is another kind of file, or from another version: make it again"


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of all records. Its fields are the keys of its JSON, in order."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = ()  # fields that files of an earlier version lack

    def __getitem__(self, key: str) -> Any:
        """The value of a JSON key, so that an answer in Python is read like the one that `--json` prints."""
        if key not in self.__struct_fields__:
            raise KeyError(key)
        return getattr(self, key)

    def keys(self) -> tuple[str, ...]:
        """The JSON keys, so that `dict(record)` works."""
        return self.__struct_fields__

    def _repr_html_(self) -> str:
        """The record as a table, which notebooks show."""
        return html_table(plain(self))


def plain(value: Any) -> Any:
    """A record, or a value in one, as plain JSON values."""
    if isinstance(value, Shape):
        return plain(value.record())
    value = _fields(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast("tuple[Any, ...]", value)]
    return value


def _fields(value: Any) -> Any:
    """A record's or a dataclass's fields by name; anything else as it is."""
    if isinstance(value, Record):
        return {name: getattr(value, name) for name in value.keys()}  # noqa: SIM118  # a record is not a mapping
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value


def write(path: Path, record: Record, *, private: bool = False) -> None:
    """Write a record atomically, with its schema version and its digest; a `private` one for its owner alone.

    Raises: UserError where the file cannot be written.
    """
    write_json(path, plain(record), private=private)


def read(path: Path, cls: type[T]) -> T:
    """Read what `write` wrote.

    Raises: UserError where the file is missing, damaged or edited, or a field is missing, unknown or of another type.
    """
    found = try_read(path, cls)
    if isinstance(found, Fault):
        raise found.error()
    return found


def write_lines(path: Path, records: Sequence[Record]) -> None:
    """Write records as JSON lines, whole or not at all.

    Raises: UserError where the file cannot be written.
    """
    write_atomically(path, b"".join(msgspec.json.encode(plain(record)) + b"\n" for record in records))


def read_lines(path: Path, cls: type[T]) -> list[T]:
    """Read what `write_lines` wrote.

    Raises: UserError where the file is missing or damaged, or a field is missing, unknown or of another type.
    """
    try:
        lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    except (OSError, RecursionError, msgspec.DecodeError) as error:
        raise UserError(f"{path}: not readable ({error})", OTHER_FILE_HINT) from error
    return [parse(line, cls, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def try_read(path: Path, cls: type[T]) -> T | Fault:
    """The result of `read`, or why the file cannot be read."""
    values = try_json(path)
    if isinstance(values, Fault):
        return values
    return _parsed({key: value for key, value in values.items() if key != "schema_version"}, cls, str(path))


def parse(values: Any, cls: type[T], origin: str) -> T:
    """Plain JSON values as a record; `origin` names their source in errors.

    Raises: UserError for a field that is missing, unknown or of another type.
    """
    found = _parsed(values, cls, origin)
    if isinstance(found, Fault):
        raise found.error()
    return found


def _parsed(values: Any, cls: type[T], origin: str) -> T | Fault:
    kind = kind_in(values)
    hint = f"it is a {kind}" if kind and kind not in cls.__name__.lower() else OTHER_FILE_HINT
    try:
        found = msgspec.convert(values, cls)
    except msgspec.ValidationError as error:
        return Fault(f"{origin}: {in_words(str(error))}", hint)
    for name in _unknown(values, plain(found)):
        return Fault(f"{origin}: unknown field '{name}'", hint)
    for name in _missing(values, found):
        return Fault(f"{origin}: lacks the field '{name}'", hint)
    return found


def in_words(message: str) -> str:
    """msgspec's message in our words, like `law.rmse: expected a number, found text`."""
    problem, field = message.partition(" - at `$")[0], field_at_fault(message)
    named = NAMED.fullmatch(problem)
    if named:
        return f"{'lacks the field' if named[1] == 'missing required' else 'has the unknown field'} '{field}'"
    expected = re.fullmatch(r"Expected `(.+)`, got `(.+)`", problem)
    if expected:
        wanted, given = (" or ".join(WORDS.get(word, word) for word in part.split(" | ")) for part in expected.groups())
        return f"{field}: expected {wanted}, found {given}"
    plainly = re.sub(r"`(\w+)`", lambda match: WORDS.get(match[1], match[0]), problem)
    plainly = re.sub(r"^Invalid enum value ('.*')$", r"\1 is not known", re.sub("^Expected", "expected", plainly))
    return f"{field}: {plainly}" if field else plainly


def field_at_fault(message: str) -> str:
    """The field that a message of msgspec is about, like `law.rmse`; of a list `.*`."""
    problem, _, path = message.partition(" - at `$")
    field, named = re.sub(r"\[\.\.\.\]", ".*", path.rstrip("`")).lstrip("."), NAMED.fullmatch(problem)
    return ".".join(filter(None, [field, named and named[2]]))


def _unknown(given: Any, kept: Any, path: str = "") -> Iterator[str]:
    """Unknown fields: msgspec reports them in records but ignores them in a Shape."""
    if isinstance(given, Mapping) and isinstance(kept, Mapping):
        for key, value in cast("Mapping[str, Any]", given).items():
            name = f"{path}.{key}" if path else str(key)
            if key not in kept:
                yield name
            else:
                yield from _unknown(value, kept[key], name)
    elif isinstance(given, list) and isinstance(kept, list):
        for at, (one, other) in enumerate(zip(cast("list[Any]", given), cast("list[Any]", kept), strict=False)):
            yield from _unknown(one, other, f"{path}[{at}]")


def _missing(given: Any, kept: Any, path: str = "") -> Iterator[str]:
    """Fields that were not given and took their defaults, which are there for construction only.

    A Shape may leave out what it has by default: it is written so, and its fields grow with the families of models. A
    Recipe may not: only our own commands write one into a file, and whole.
    """
    if isinstance(kept, Shape):
        return
    later = kept.ADDED_LATER if isinstance(kept, Record) else ()
    kept = _fields(kept)
    if isinstance(given, Mapping) and isinstance(kept, Mapping):
        values = cast("Mapping[str, Any]", given)
        for key, item in cast("Mapping[str, Any]", kept).items():
            name = f"{path}.{key}" if path else str(key)
            if key in values:
                yield from _missing(values[key], item, name)
            elif key not in later:
                yield name
    elif isinstance(given, list) and isinstance(kept, list | tuple):
        for at, (one, other) in enumerate(zip(cast("list[Any]", given), cast("tuple[Any, ...]", kept), strict=False)):
            yield from _missing(one, other, f"{path}[{at}]")
