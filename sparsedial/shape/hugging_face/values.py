"""The values of a `config.json`, each checked when it is read; errors name the field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from sparsedial.errors import UserError

Fields = dict[str, Any]  # of a Shape or of a config.json, by name


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Config:
    """The content of a `config.json`, and where it comes from."""

    values: Mapping[str, Any]
    origin: str = "config"

    def get(self, name: str) -> Any:
        """A value as given; None where it is left out or null."""
        return self.values.get(name)

    def with_defaults(self, defaults: Mapping[str, Any], synonyms: Mapping[str, str]) -> Config:
        """With the defaults of fields that it leaves out; fields under another name get their usual one.

        Raises: UserError where two names of one field have different values.
        """
        stated: dict[str, str] = {}  # by the usual name, the one that the file has
        for name, value in self.values.items():
            if value is None:
                continue
            first = stated.setdefault(synonyms.get(name, name), name)
            if self.values[first] != value:
                raise self.error(
                    f"{first}={self.values[first]!r} and {name}={value!r} are two names of one field, and contradict"
                    " each other",
                    hint="leave one of them out",
                )
        renamed = {usual: self.values[name] for usual, name in stated.items()}
        return replace(self, values={**defaults, **self.values, **renamed})

    def error(self, problem: str, hint: str | None = None) -> UserError:
        """An error about this configuration."""
        return UserError(f"{self.origin}: {problem}", hint=hint)

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number of at least 0; null is the default.

        Raises: UserError for anything else, or null without a default.
        """
        value = self.get(name)
        if value is None:
            if default is None:
                raise self.error(f"'{name}' is missing")
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.error(f"{name}={value!r} is not a whole number of at least 0")
        return value

    def positive(self, name: str) -> float:
        """A number above 0.

        Raises: UserError for anything else.
        """
        value = self.get(name)
        if not is_number(value) or value <= 0:
            raise self.error(f"{name}={value!r} is not a number above 0")
        return float(value)

    def truth(self, name: str) -> bool:
        """A switch; null is off.

        Raises: UserError for anything else.
        """
        value = self.get(name)
        if not isinstance(value, bool | None):
            raise self.error(f"{name}={value!r} is neither true nor false")
        return bool(value)

    def listed(self, name: str) -> list[Any]:
        """A list; null is an empty one.

        Raises: UserError for anything else.
        """
        value = self.get(name) or []
        if not isinstance(value, list):
            raise self.error(f"{name}={value!r} is not a list")
        return value
