"""The first fields of every benchmark's record: its command and its machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsedial.machine.hardware import describe
from sparsedial.records.record import plain
from sparsedial.store import write_json


def has(instructions: str) -> bool:
    """Whether the processor has these instructions, as /proc/cpuinfo names them."""
    return instructions in Path("/proc/cpuinfo").read_text()


def keep(path: Path, command: str, found: Mapping[str, Any]) -> None:
    """Write the results of a command on this machine."""
    write_json(path, plain({"command": command, "machine": describe(), **found}))
