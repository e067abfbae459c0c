"""A planted fault."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A line of a file that is changed, what it becomes, and where a test must fail."""

    what: str
    file: str  # inside the package
    line: str  # a part of one line, found once in the file
    becomes: str
    tests: str
