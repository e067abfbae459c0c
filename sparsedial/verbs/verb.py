"""What is known of a verb before its module is imported."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sparsedial.records.record import Record


@dataclass(frozen=True, kw_only=True)
class Verb:
    """A verb's package and its summary, known without importing the module."""

    name: str
    settings: str  # the dataclass of its settings, in the verb's module
    summary: str
    examples: tuple[str, ...]  # whole command lines, at the end of its help
    streams: bool = False  # whether its function also takes `say`, which gets its text as it comes

    @property
    def module(self) -> Any:
        """The verb's own module, imported now."""
        return importlib.import_module(f"sparsedial.verbs.{self.name}.{self.name}")

    @property
    def settings_class(self) -> type:
        """The frozen dataclass of the verb's settings."""
        return getattr(self.module, self.settings)

    @property
    def function(self) -> Callable[..., Record]:
        """The verb itself: takes its settings, gives the record that `--json` prints."""
        return getattr(self.module, self.name)
