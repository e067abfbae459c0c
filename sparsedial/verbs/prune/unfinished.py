"""What `prune` has found when it is stopped: the same command goes on from it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from sparsedial.model.digests import digest_of
from sparsedial.pruning.shelf import Shelf, shelf_beside
from sparsedial.pruning.windows import Windows
from sparsedial.showing.notes import note
from sparsedial.store import digest
from sparsedial.verbs.following import versions
from sparsedial.verbs.prune.settings import PruneSettings

NAMES = ("checkpoint", "out")  # settings that say where something lies, not what it is


@contextlib.contextmanager
def found_so_far(settings: PruneSettings, texts: Iterable[Windows | None]) -> Iterator[Shelf]:
    """The shelf of a command, which is empty unless the same command was stopped before.

    Raises: UserError where another process has it, or it cannot be written.
    """
    with shelf_beside(settings.out.resolve(), key_of(settings, texts), note) as shelf:
        yield shelf


def key_of(settings: PruneSettings, texts: Iterable[Windows | None]) -> str:
    """The digest of all that decides a result: the checkpoint, the texts, every setting, and the software."""
    asked = {field.name: _named(getattr(settings, field.name)) for field in fields(settings) if field.name not in NAMES}
    read = [text and [text.digest, text.tokens, text.context] for text in texts]
    return digest([versions(), digest_of(settings.checkpoint), read, asked])


def _named(value: Any) -> str:
    """A setting in words; a file or folder is the same one, however its path is spelled."""
    if isinstance(value, tuple):
        return str([_named(Path(name)) if os.path.exists(name) else name for name in map(str, value)])
    return os.path.realpath(value) if isinstance(value, Path) else str(value)
