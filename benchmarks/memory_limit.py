"""A process under a limit of its own on memory: RLIMIT_DATA, which everybody may set for what they start.

Linux counts private memory that can be written towards it (VmData): the heap, large allocations, stacks of threads.
Files that are mapped to be read are not counted. RLIMIT_AS also counts those and what is only reserved, of which
PyTorch has gigabytes; a limit on a control group (memory.max) needs a system that hands one out.

What was freed and lies between other pieces of the heap counts as well, though its pages are given back. So glibc is
told to map pieces of a megabyte or more by themselves: they end when they are freed.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

GLIBC = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
STATUS = "print(open('/proc/self/status').read())"  # of a child, as its last words


def no_limit_here() -> str | None:
    """Why a limit says nothing on this system; None where it does."""
    if platform.system() == "Linux" and "VmData:" in Path("/proc/self/status").read_text():
        return None
    return f"{platform.system()} counts other memory towards RLIMIT_DATA than Linux does"


def status_bytes(status: str, field: str) -> int:
    """A field of what `STATUS` printed, such as VmHWM."""
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{field}:"))


def under_limit(command: Sequence[str], limit_bytes: int | None) -> subprocess.CompletedProcess[str]:
    """Run a command, from its start under this limit if there is one, and by these rules of glibc."""
    sets = None if limit_bytes is None else partial(resource.setrlimit, resource.RLIMIT_DATA, (limit_bytes,) * 2)
    rules = {**os.environ, **GLIBC}
    return subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=sets, env=rules)
