"""A command as a Python function, with types, defaults and documentation from its settings."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsedial.errors import UserError
from sparsedial.records.record import Record
from sparsedial.settings import fill
from sparsedial.verbs import Verb


def python_function(verb: Verb) -> Callable[..., Record]:
    """The verb as a Python function that takes the command line's arguments by position and by keyword.

    Values may be text with units (`time="30m"`) or plain numbers. None means that a setting is not given.
    """
    fields = [field for field in dataclasses.fields(verb.settings_class) if field.init]
    leading = [field for field in fields if field.metadata.get("positional")]

    def call(*positional: Any, **settings: Any) -> Record:
        if positional and leading and leading[0].metadata.get("nargs") in ("*", "+"):
            listed = len(positional) == 1 and (positional[0] is None or isinstance(positional[0], list | tuple))
            positional = positional if listed else (positional,)
        if len(positional) > len(leading):
            raise UserError(
                f"{verb.name}: {positional[len(leading)]!r} is one argument too many",
                hint="give settings by name, like context=256",
            )
        for field, value in zip(leading, positional, strict=False):
            if field.name in settings:
                raise UserError(f"{verb.name}: {field.name} is given twice")
            settings[field.name] = value
        given = {name: value for name, value in settings.items() if value is not None}
        return verb.function(fill(verb.settings_class, given, verb.name))

    call.__name__ = call.__qualname__ = verb.name
    call.__doc__ = documented(verb)
    call.__signature__ = signature(verb)  # type: ignore[attr-defined]
    return call


def signature(verb: Verb) -> inspect.Signature:
    """The verb's settings as parameters with their types and defaults, and the record that it gives."""
    fields = [field for field in dataclasses.fields(verb.settings_class) if field.init]
    ordered = sorted(fields, key=lambda field: not field.metadata.get("positional"))
    hints = typing.get_type_hints(verb.settings_class)
    returned = typing.get_type_hints(verb.function)["return"]
    return inspect.Signature([_parameter(field, hints[field.name]) for field in ordered], return_annotation=returned)


def documented(verb: Verb) -> str:
    """What the verb does, and a line for each setting."""
    text = inspect.cleandoc(verb.function.__doc__ or "")
    lines = [f"{field.name}: {field.metadata.get('help', '')}" for field in dataclasses.fields(verb.settings_class)]
    return "\n".join([text, "", "Settings:", *(f"    {line}" for line in lines)])


def _parameter(field: dataclasses.Field[Any], hint: Any) -> inspect.Parameter:
    leading = field.metadata.get("positional")
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if leading else inspect.Parameter.KEYWORD_ONLY
    default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    return inspect.Parameter(field.name, kind, default=default, annotation=_given_as(field, hint))


def _given_as(field: dataclasses.Field[Any], hint: Any) -> Any:
    """What a setting may be given as: also as text where it is read from text, and a list where it is several."""
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    given: list[Any] = []
    for part in parts:
        if part is Path:
            given += [str, Path]
        elif typing.get_origin(part) is tuple:
            given += [str, Sequence[typing.get_args(part)[0]]]
        elif typing.get_origin(part) is dict:
            given += [Mapping[str, Any]]
        else:
            given.append(part)
    if "parse" in field.metadata and str not in given and "table" not in field.metadata:
        given.insert(0, str)
    return functools.reduce(operator.or_, given)
