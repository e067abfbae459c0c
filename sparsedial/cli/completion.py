"""Tab completion of commands, flags and names, by argcomplete (`pip install 'sparsedial[completion]'`)."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterable
from typing import Any

from sparsedial.cli.help import dotted, flag, is_switch
from sparsedial.law.literature import PUBLISHED as LAWS
from sparsedial.machine.devices import DEVICES
from sparsedial.shape.published import PUBLISHED as MODELS
from sparsedial.verbs import VERBS, Verb

# Words that a setting may be besides the name of a file.
KNOWN: dict[tuple[str, str], Iterable[str]] = {
    ("count", "shape"): MODELS,
    ("train", "model"): MODELS,
    ("plan", "law"): LAWS,
    ("dial", "law"): LAWS,
    ("plan", "device"): DEVICES,
    ("train", "device"): ("cpu", "cuda"),
    ("study", "device"): ("cpu", "cuda"),
    ("profile", "device"): ("cpu", "cuda"),
    ("train", "tokenizer"): ("bytes", "bpe:4096"),
    ("study", "tokenizer"): ("bytes", "bpe:4096"),
}


def complete() -> None:
    """Answer the shell's question for completions, and exit; argcomplete asks by setting _ARGCOMPLETE.

    Raises: ModuleNotFoundError without argcomplete.
    """
    import argcomplete

    line = os.environ.get("COMP_LINE", "").split()
    argcomplete.autocomplete(parser(line[1] if len(line) > 1 else ""), always_complete_options=False)


def parser(wanted: str) -> argparse.ArgumentParser:
    """The command line as argparse describes it; of commands that are not wanted only the names, so that it is fast."""
    whole = argparse.ArgumentParser("sparsedial")
    whole.add_argument("--version", action="store_true")
    commands = whole.add_subparsers()
    for name, verb in VERBS.items():
        command = commands.add_parser(name, help=verb.summary)
        if name == wanted:
            _add(command, verb)
    return whole


def _add(command: argparse.ArgumentParser, verb: Verb) -> None:
    for field in dataclasses.fields(verb.settings_class):
        if field.metadata.get("positional"):
            _known(command.add_argument(field.name, nargs=field.metadata.get("nargs")), verb, field.name)
        elif "table" in field.metadata:
            for inner, _ in dotted(field):
                command.add_argument(f"--{flag(field)}.{inner.name}")
        elif is_switch(verb.settings_class, field):
            command.add_argument(f"--{flag(field)}", action="store_true")
        else:
            _known(command.add_argument(f"--{flag(field)}"), verb, field.name)
    command.add_argument("--config")
    command.add_argument("--json", action="store_true")


def _known(action: argparse.Action, verb: Verb, name: str) -> None:
    """Complete an argument with the words that are known for it, and with files; files alone are the default."""
    words = KNOWN.get((verb.name, name))
    if words is not None:
        action.completer = lambda prefix, **more: _words_and_files(words, prefix, **more)  # type: ignore[attr-defined]


def _words_and_files(words: Iterable[str], prefix: str, **more: Any) -> list[str]:
    from argcomplete.completers import FilesCompleter

    return [*(word for word in words if word.startswith(prefix)), *FilesCompleter()(prefix, **more)]
