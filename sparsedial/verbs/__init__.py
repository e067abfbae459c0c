"""One function for each command."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sparsedial.errors import UserError
from sparsedial.records.record import Record
from sparsedial.settings import fill


@dataclass(frozen=True, kw_only=True)
class Verb:
    """A verb's module and its summary, known without importing the module."""

    name: str
    settings: str  # the dataclass of its settings, in the verb's module
    summary: str
    streams: bool = False  # whether its function also takes `say`, which gets its text as it comes

    @property
    def module(self) -> Any:
        """The verb's own module, imported now."""
        return importlib.import_module(f"sparsedial.verbs.{self.name}")

    @property
    def settings_class(self) -> type:
        """The frozen dataclass of the verb's settings."""
        return getattr(self.module, self.settings)

    @property
    def function(self) -> Callable[..., Record]:
        """The verb itself: takes its settings, gives the record that `--json` prints."""
        return getattr(self.module, self.name)


VERBS = {
    verb.name: verb
    for verb in (
        Verb(name="study", settings="StudySettings", summary="find the best sparsity on your text and this machine"),
        Verb(name="count", settings="CountSettings", summary="count the parameters, FLOPs and bytes of a model"),
        Verb(name="fit", settings="FitSettings", summary="fit a scaling law to a table of runs"),
        Verb(
            name="profile",
            settings="ProfileSettings",
            summary="measure this machine: seconds, joules and bytes of a training step",
        ),
        Verb(name="plan", settings="PlanSettings", summary="find the best shape for a budget in any currency"),
        Verb(
            name="dial",
            settings="DialSettings",
            summary="open a page that shows loss and cost as you turn the sparsity",
        ),
        Verb(name="train", settings="TrainSettings", summary="train one model"),
        Verb(
            name="evaluate",
            settings="EvaluateSettings",
            summary="measure loss and bits per byte of a checkpoint on a text",
        ),
        Verb(name="generate", settings="GenerateSettings", summary="continue a prompt with a checkpoint", streams=True),
    )
}


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
    call.__doc__ = verb.function.__doc__
    call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            _parameter(field, field in leading)
            for field in [*leading, *(field for field in fields if field not in leading)]
        ]
    )
    return call


def _parameter(field: dataclasses.Field[Any], positional: bool) -> inspect.Parameter:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if positional else inspect.Parameter.KEYWORD_ONLY
    default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    return inspect.Parameter(field.name, kind, default=default)
