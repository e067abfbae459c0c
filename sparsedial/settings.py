"""One way into settings: a frozen dataclass filled from a file, then from flags; unknown names are errors."""

from __future__ import annotations

import dataclasses
import math
import os
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from sparsedial.errors import UserError, nearest

T = TypeVar("T")


def fill(cls: type[T], values: Mapping[str, Any], place: str) -> T:
    """Build the dataclass `cls` from plain values, converting each to its field's type.

    `place` names the origin in errors ("study", "job.yaml"). A field may carry its own reader in
    `metadata={"parse": function}`, which takes the text and returns the value.

    Raises: UserError for an unknown name (with the nearest one), a missing one, or a value of the wrong type.
    """
    converted = convert(cls, values, place)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.init and required and field.name not in values:
            raise UserError(f"{place}: '{field.name}' is missing", hint=field.metadata.get("example"))
    return cls(**converted)


def convert(cls: type, values: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Some fields of the dataclass `cls`, converted to their types.

    Raises: UserError as `fill`, but for missing ones.
    """
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    hints = typing.get_type_hints(cls)
    for name in values:
        if name not in fields:
            raise UserError(f"{place}: no setting named '{name}'", hint=nearest(name, fields))
    return {name: _convert(fields[name], hints[name], value, place) for name, value in values.items()}


def _convert(field: dataclasses.Field[Any], hint: Any, value: Any, place: str) -> Any:
    parse = field.metadata.get("parse")
    if parse is not None and value is not None:
        return parse(value)
    return _as_type(hint, value, f"{place}: {field.name}")


def _as_type(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _as_type(next(argument for argument in arguments if argument is not type(None)), value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise UserError(f"{where}: '{value}' is not one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise UserError(f"{where}: '{value}' is not a list")
        if any(item == "" for item in items):
            raise UserError(f"{where}: an entry is empty", hint="write it like a,b")
        return tuple(_as_type(arguments[0], item, where) for item in items)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return fill(typing.cast(type, hint), value, where)
    return _as_scalar(hint, value, where)


def _as_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is bool:
        words = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False}
        if isinstance(value, bool):
            return value
        if str(value).lower() in words:
            return words[str(value).lower()]
        raise UserError(f"{where}: '{value}' is neither true nor false")
    if hint in (int, float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: '{value}' is not a number") from error
        if math.isnan(number):
            raise UserError(f"{where}: '{value}' is not a number")
        if hint is float:
            return number
        if not number.is_integer():  # infinity neither
            raise UserError(f"{where}: {value} is not a whole number")
        return int(number)
    if hint is Path and not str(value).strip():
        raise UserError(f"{where}: an empty name is no file and no folder")
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is str and isinstance(value, str | int | float | Path) and not isinstance(value, bool):
        return str(value)
    if isinstance(hint, type) and isinstance(value, hint):
        return value
    raise UserError(f"{where}: cannot use {value!r} here")


def file_names(value: Any) -> tuple[str, ...]:
    """Names of files or folders: `a,b`, or one whose own name has a comma where there is such; a list, or a Path.

    Raises: UserError for an empty name.
    """
    if isinstance(value, list | tuple):
        return tuple(name for item in value for name in file_names(str(item)))
    whole = str(value)
    names = (whole,) if os.path.exists(whole) else tuple(whole.split(","))
    if not all(name.strip() for name in names):
        raise UserError("text: an entry is empty", hint="write it like a,b")
    return names


def read_settings_file(path: Path) -> dict[str, Any]:
    """A YAML or TOML file of settings as plain values.

    Raises: UserError where it is missing, unreadable, or not a table of names and values.
    """
    try:
        text = path.read_text()
        if path.suffix == ".toml":
            values: Any = tomllib.loads(text)
        else:
            values = yaml.safe_load(text)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}: not readable as settings ({error.problem}{line})") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable as settings ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds no names and values", hint="one setting a line, like `time: 30m`")
    return values
