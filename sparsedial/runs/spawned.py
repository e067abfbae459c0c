"""What a new process of ours does not do: run its user's script again."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator
from types import ModuleType


@contextlib.contextmanager
def without_script() -> Generator[None]:
    """Start processes within it that do not import the script of this one. What they are given to do lies in a module.

    Python imports the script in each process that it spawns, so one that calls a command without looking at its
    `__name__` would begin the same command there, and the new process would end before it has begun its work.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script
