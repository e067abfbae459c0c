"""The default study as `make study` runs it, with its time and peak memory: `python -m benchmarks.default_study`.

Writes benchmarks/records/default_study.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.keeping import keep

RECORD = Path(__file__).parent / "records" / "default_study.json"
SAMPLE_SECONDS = 0.5


def tree_bytes(root: int) -> int:
    """Proportional memory of a process and its descendants; shared pages are counted once."""
    total, queue = 0, [root]
    while queue:
        pid = queue.pop()
        try:
            queue += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (OSError, ValueError):
            continue  # it has just ended
        total += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def main() -> None:
    """Run the study once, and write its output, time and memory."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "sparsedial.cli.main", "study", "--out", f"{folder}/study", "--json"]
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        peaks = [0]

        def watch() -> None:
            while process.poll() is None:
                peaks.append(tree_bytes(process.pid))
                time.sleep(SAMPLE_SECONDS)

        threading.Thread(target=watch, daemon=True).start()
        printed, _ = process.communicate()
        wall_seconds = time.monotonic() - began
    result = json.loads(printed)
    result["report"], result["next"] = "runs/study/report.html", result["next"].replace(f"{folder}/study", "runs/study")
    keep(
        RECORD,
        "make study",
        {
            "wall_seconds": wall_seconds,
            "peak_memory_bytes": max(peaks),
            "result": result,
        },
    )


if __name__ == "__main__":
    main()
