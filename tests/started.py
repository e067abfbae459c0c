"""A command in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path


def started(*words: str) -> subprocess.Popen[str]:
    """The process of a command, whose streams are read and which hears Ctrl-C."""
    return subprocess.Popen(
        [sys.executable, "-m", "sparsedial.cli.main", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore Ctrl-C
    )


def joining(folder: Path, name: str) -> subprocess.Popen[str]:
    """`sparsedial join` with one worker."""
    return started("join", str(folder), "--workers", "1", "--name", name)
