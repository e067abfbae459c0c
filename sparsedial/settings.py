"""One way into settings: a frozen dataclass filled from a file, then from flags; unknown names are errors."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import io
import math
import os
import textwrap
import tokenize
import tomllib
import types
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from sparsedial.errors import UserError, nearest

T = TypeVar("T")


def setting(
    default: Any = dataclasses.MISSING,
    help: str = "",
    metavar: str | None = None,
    *,
    parse: Callable[[Any, str], Any] | None = None,
    factory: Callable[[], Any] | None = None,
    **more: Any,
) -> Any:
    """A field of a verb's settings: its default, its line of help, the name of its value there, its parser.

    `parse` gets the value as given, and the field's name for its errors. `more` is for the command line: `positional`,
    `nargs`, `any_words`, `table` (the class of a table of settings), `defaults` (other than that class's own), and
    an `example` for errors.
    """
    metadata = {
        "help": help,
        **({"metavar": metavar} if metavar else {}),
        **({"parse": parse} if parse else {}),
        **more,
    }
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def known_names(value: Any, known: Collection[str], what: str, field: str) -> tuple[str, ...]:
    """Names of a known list, from `csv,wandb` or a list.

    Raises: UserError for an unknown one.
    """
    names = tuple(dict.fromkeys(file_names(value, field)))
    for name in names:
        if name not in known:
            hint = nearest(name, known) or f"there are {', '.join(known)}"
            raise UserError(f"no {what} named '{name}'", hint=hint, field=field)
    return names


def fill(cls: type[T], values: Mapping[str, Any], origin: str) -> T:
    """Build the dataclass `cls` from plain values, converting each to its field's type.

    `origin` says in errors where the values come from ("study", "job.yaml").

    Raises: UserError for an unknown name (with the nearest one), missing ones, or a value of the wrong type.
    """
    converted = convert(cls, values, origin)
    lacking = [field for field in dataclasses.fields(cls) if _required(field) and field.name not in values]  # type: ignore[arg-type]
    if lacking:
        names = ", ".join(f"'{field.name}'" for field in lacking)
        verb = "is" if len(lacking) == 1 else "are"
        raise UserError(f"{origin}: {names} {verb} missing", hint=lacking[0].metadata.get("example"))
    return cls(**converted)


def given(settings: Any) -> list[str]:
    """The names of the settings that are not at their default, in order; those without a default count."""
    return [field.name for field in dataclasses.fields(settings) if getattr(settings, field.name) != _default(field)]


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.init and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """The types of a class's fields; to read them takes longer than to fill them."""
    return typing.get_type_hints(cls)


def convert(cls: type, values: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Some fields of the dataclass `cls`, converted to their types.

    Raises: UserError as `fill`, except for missing names.
    """
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    hints = _hints(cls)
    for name in values:
        if name not in fields:
            raise UserError(f"{origin}: no setting named '{name}'", hint=nearest(name, fields))
    return {name: _convert(fields[name], hints[name], value, origin) for name, value in values.items()}


def _convert(field: dataclasses.Field[Any], hint: Any, value: Any, origin: str) -> Any:
    parse = field.metadata.get("parse")
    if parse is not None and value is not None:
        return parse(value, field.name)
    return _as_type(hint, value, f"{origin}: {field.name}")


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
        if not number.is_integer():  # nor is infinity
            raise UserError(f"{where}: {value} is not a whole number")
        return int(number)
    if hint is Path and not str(value).strip():
        raise UserError(f"{where}: the name of a file or folder is empty")
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is str and isinstance(value, str | int | float | Path) and not isinstance(value, bool):
        return str(value)
    if isinstance(hint, type) and isinstance(value, hint):
        return value
    raise UserError(f"{where}: cannot use {value!r} here")


def meanings(cls: type) -> dict[str, str]:
    """What each field of a dataclass means: the comment at its definition. Empty where its source is not installed."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except OSError:
        return dict.fromkeys((field.name for field in dataclasses.fields(cls)), "")
    comments: dict[int, str] = {
        token.start[0]: token.string.removeprefix("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and not token.string.startswith("# fmt")
    }
    (definition,) = typing.cast("list[ast.ClassDef]", ast.parse(source).body)
    return {
        node.target.id: " ".join(comments[line] for line in range(node.lineno, node.end_lineno + 1) if line in comments)
        for node in definition.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno
    }


def file_names(value: Any, field: str = "text") -> tuple[str, ...]:
    """Names of files or folders from `a,b`, a list or a Path. Where a file is named `a,b`, that is one name.

    Raises: UserError for an empty name.
    """
    if isinstance(value, list | tuple):
        return tuple(name for item in value for name in file_names(str(item), field))
    whole = str(value)
    names = (whole,) if os.path.exists(whole) else tuple(whole.split(","))
    if not all(name.strip() for name in names):
        raise UserError("an entry is empty", hint="give the names of files or folders, like a,b", field=field)
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
        raise UserError(f"{path}: not a table of names and values", hint="write one setting per line, like `time: 30m`")
    return values
