"""A whole study at a reduced size, in a process of its own."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from tests.started import started

SIZES = ["--budgets", "2.7e9,3.3e9", "--sparsities", "0,0.75", "--context", "16", "--batch", "4", "--seeds", "2"]
SIZES += ["--probes", "8%", "--select", "random", "--keep", "1,.5"]
PATIENCE = 240.0  # seconds, for a machine that is busy with other things


def start(corpus: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    return started("study", str(corpus), *SIZES, "--out", str(out), *more)


def wait_for_runs(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    while len(list(out.glob("runs/*/run.json"))) < count:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)


def stamps(out: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in out.glob("runs/*/run.json")}
