"""The most memory that another process held, and each of its children."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

SAMPLE_SECONDS = 0.1


def tree_of(root: int) -> list[int]:
    """A process and its descendants that run now."""
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            continue  # it has just ended
        found.append(pid)
        queue += map(int, children)
    return found


def peak_of(pid: int) -> int:
    """The most memory that a process has held so far, by VmHWM; 0 for one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def tree_peaks(process: subprocess.Popen[str]) -> dict[int, int]:
    """Wait for a process, and give the most memory that it and each of its descendants held, by its number.

    What one takes less than a tenth of a second before its end may be missing.
    """
    peaks: dict[int, int] = {}
    while process.poll() is None:
        for pid in tree_of(process.pid):
            peaks[pid] = max(peaks.get(pid, 0), peak_of(pid))
        time.sleep(SAMPLE_SECONDS)
    return peaks
