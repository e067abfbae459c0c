"""Flags come from the settings dataclass of a verb; a settings file fills in what the flags do not give."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsedial.cli.help import flag, help_text, is_switch
from sparsedial.errors import UserError, nearest
from sparsedial.settings import convert, fill, read_settings_file
from sparsedial.verbs import Verb

SETTINGS_FILES = (".yaml", ".yml", ".toml")  # a word with such an ending is a settings file, as after --config


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a command line asks for."""

    verb: str
    settings: Any
    json: bool
    help: str | None = None


def read_arguments(verb: Verb, words: list[str]) -> Request:
    """Turn the words after the verb into its settings. Flags override the settings file.

    A flag is its field's name with dashes; `metadata` may hold `help`, `metavar`, `positional` and `nargs`.

    Raises: UserError for an unknown flag (with the nearest), a missing value, or a value that does not fit.
    """
    cls = verb.settings_class
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    positional = [field for field in fields.values() if field.metadata.get("positional")]
    if "-h" in words or "--help" in words:
        return Request(verb=verb.name, settings=None, json=False, help=help_text(verb))
    values: dict[str, Any] = {}
    loose: list[str] = []
    as_json, file = False, None
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word == "--json":
            as_json = True
        elif word.startswith("--json="):
            raise UserError(f"{verb.name}: --json takes no value")
        elif word == "--":
            loose += queue
            queue = []
        elif word.startswith("--"):
            name, equals, attached = word[2:].partition("=")
            if name == "config":
                file = _value(word, attached if equals else None, queue, verb.name)
                continue
            key = name.replace("-", "_")
            head = key.partition(".")[0]
            if head not in fields or fields[head].metadata.get("positional"):
                flags = [flag(field) for field in fields.values() if not field.metadata.get("positional")]
                raise UserError(f"{verb.name}: no setting named '{name}'", hint=_suggest(name, flags, verb.name))
            if not equals and is_switch(cls, fields[head]):
                _put(values, key, True, verb.name)
            else:
                _put(values, key, _value(word, attached if equals else None, queue, verb.name), verb.name)
        elif word.startswith("-") and word != "-" and not _is_number(word):
            raise UserError(
                f"{verb.name}: no setting named '{word}'", hint=f"`sparsedial {verb.name} --help` lists them"
            )
        elif word.endswith(SETTINGS_FILES) and file is None and not _takes_any_words(positional, len(loose)):
            file = word
        else:
            loose.append(word)
    _assign_positional(loose, positional, values, verb.name)
    from_file = _from_file(cls, file) if file else {}
    return Request(verb=verb.name, settings=fill(cls, {**from_file, **values}, verb.name), json=as_json)


def _takes_any_words(positional: list[dataclasses.Field[Any]], index: int) -> bool:
    """Whether the next argument may be any text, even the name of a settings file."""
    return index < len(positional) and positional[index].metadata.get("any_words", False)


def _from_file(cls: type, file: str) -> dict[str, Any]:
    """The settings that a file gives; empty ones are left out.

    Raises: UserError that names the file, for a setting that is unknown or does not fit.
    """
    values = {name: value for name, value in read_settings_file(Path(file)).items() if value is not None}
    convert(cls, values, file)
    return values


def _suggest(name: str, flags: list[str], verb_name: str) -> str:
    close = nearest(name, [*flags, "json", "config"])
    return close.replace("'", "'--", 1) if close else f"`sparsedial {verb_name} --help` lists them"


def _value(word: str, attached: str | None, queue: list[str], verb_name: str) -> str:
    if attached is not None:
        return attached
    if not queue or (queue[0].startswith("--") and len(queue[0]) > 2):
        raise UserError(f"{word} needs a value", hint=f"`sparsedial {verb_name} --help` says which")
    return queue.pop(0)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _put(values: dict[str, Any], key: str, value: Any, verb_name: str) -> None:
    head, dot, rest = key.partition(".")
    if dot:
        values.setdefault(head, {})[rest] = value
    elif key in values:
        raise UserError(f"{verb_name}: --{key.replace('_', '-')} is given twice")
    else:
        values[key] = value


def _assign_positional(
    loose: list[str], positional: list[dataclasses.Field[Any]], values: dict[str, Any], verb_name: str
) -> None:
    for field in positional:
        many = field.metadata.get("nargs") in ("*", "+")
        if loose and many:
            values[field.name], loose = tuple(loose), []
        elif loose:
            values[field.name], loose = loose[0], loose[1:]
    if loose:
        raise UserError(
            f"{verb_name}: '{loose[0]}' is one argument too many",
            hint=f"`sparsedial {verb_name} --help` shows the usage",
        )
