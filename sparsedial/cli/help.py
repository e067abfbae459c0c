"""The help of a command: its usage, a line for each setting, and examples."""

from __future__ import annotations

import dataclasses
import textwrap
import typing
from typing import Any, Literal

from sparsedial.settings import meanings
from sparsedial.verbs import Verb

HELP_COLUMNS = 100


def help_text(verb: Verb) -> str:
    """Usage, what the verb does, and a line for each setting with its default."""
    fields = [field for field in dataclasses.fields(verb.settings_class) if field.init]
    positional = [field for field in fields if field.metadata.get("positional")]
    names = " ".join(
        {"*": f"[{field.name.upper()}…]", "?": f"[{field.name.upper()}]"}.get(
            field.metadata.get("nargs", ""), field.name.upper()
        )
        for field in positional
    )
    rows = [(_flag_words(verb, field), _explain(field)) for field in fields if not field.metadata.get("positional")]
    rows += [
        ("--config FILE", "a YAML or TOML file of settings; `--config` may be left out; flags override the file"),
        ("--json", "print one JSON object and nothing else"),
    ]
    arguments = [(field.name.upper(), _explain(field)) for field in positional]
    width = max(len(left) for left, _ in rows + arguments)
    return "\n".join(
        [
            f"usage: sparsedial {verb.name} {names + ' ' if names else ''}[settings]",
            "",
            verb.summary[0].upper() + verb.summary[1:] + ".",
            "",
            *(_row(left, width, right) for left, right in arguments + rows),
            *(line for field in fields if "table" in field.metadata for line in _dotted_rows(field)),
            "",
            "examples:",
            *(f"  {example}" for example in verb.examples),
        ]
    )


def _dotted_rows(field: dataclasses.Field[Any]) -> list[str]:
    """A row for each setting of a table, with its meaning and its default."""
    rows = [(f"--{flag(field)}.{inner.name}", _meaning(inner, words, field)) for inner, words in dotted(field)]
    width = max(len(left) for left, _ in rows)
    return ["", f"--{flag(field)}.NAME is one of:", *(_row(left, width, right) for left, right in rows)]


def dotted(field: dataclasses.Field[Any]) -> list[tuple[dataclasses.Field[Any], str]]:
    """The settings of a table that a flag can set, each with its meaning."""
    cls = field.metadata["table"]
    words, hints = meanings(cls), typing.get_type_hints(cls)
    return [
        (inner, words[inner.name])
        for inner in dataclasses.fields(cls)
        if hints[inner.name] in (int, float, bool, str, tuple[int, ...])
        or typing.get_origin(hints[inner.name]) is Literal
    ]


def _meaning(inner: dataclasses.Field[Any], words: str, field: dataclasses.Field[Any]) -> str:
    """What a setting of a table means, the values that it may have, and its default in this command."""
    values = typing.get_args(typing.get_type_hints(field.metadata["table"])[inner.name])
    if values and isinstance(values[0], str):
        words = f"{'|'.join(values)}: {words}"
    default = field.metadata.get("defaults", {}).get(inner.name, inner.default)
    return words if default in (dataclasses.MISSING, ()) else f"{words} [{default}]"


def _row(left: str, width: int, right: str) -> str:
    """A row of the help, with its explanation wrapped."""
    indent = " " * (width + 4)
    first = f"  {left:<{width}}  "
    return textwrap.fill(
        right,
        HELP_COLUMNS,
        initial_indent=first,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _flag_words(verb: Verb, field: dataclasses.Field[Any]) -> str:
    """A flag as the help shows it; a table of settings is listed below it."""
    if "table" in field.metadata:
        return f"--{flag(field)}.NAME VALUE"
    return f"--{flag(field)}" + ("" if is_switch(verb.settings_class, field) else f" {_metavar(field)}")


def _metavar(field: dataclasses.Field[Any]) -> str:
    return field.metadata.get("metavar", field.name.rpartition("_")[2].upper())


def _explain(field: dataclasses.Field[Any]) -> str:
    text = field.metadata.get("help", "")
    default = field.metadata.get("shown", field.default)
    shown = default is not dataclasses.MISSING and default not in (None, False, ())
    return f"{text} [{_plain(default)}]" if shown else text


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def flag(field: dataclasses.Field[Any]) -> str:
    """A field's flag without the leading dashes: `max-total-parameters`."""
    return field.name.replace("_", "-")


def is_switch(cls: type, field: dataclasses.Field[Any]) -> bool:
    """Whether a flag takes no value."""
    return typing.get_type_hints(cls)[field.name] is bool
