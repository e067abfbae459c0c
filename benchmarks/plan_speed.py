"""A cold `sparsedial plan` beside a Python that imports NumPy and scipy.optimize: `python -m benchmarks.plan_speed`.

Whole processes, in turn. Writes benchmarks/records/plan_speed.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.keeping import keep
from sparsedial.machine.hardware import BusyWatch

RECORD = Path(__file__).parent / "records" / "plan_speed.json"
ROUNDS = 21
PLAN = ["-m", "sparsedial.cli.main", "plan", "--flops", "1e21", "--max-total-parameters", "30B", "--json"]
IMPORTS = ["-c", "import numpy, scipy.optimize"]


def main() -> None:
    """Time both in turn and write the record."""
    seconds: dict[str, list[float]] = {"plan": [], "imports": []}
    candidates, busy = 0, BusyWatch()
    for _ in range(ROUNDS + 1):
        for name, words in (("plan", PLAN), ("imports", IMPORTS)):
            began = time.perf_counter()
            done = subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True)
            seconds[name].append(time.perf_counter() - began)
            if name == "plan":
                candidates = json.loads(done.stdout)["candidates"]
    ratios = np.array(seconds["plan"][1:]) / np.array(seconds["imports"][1:])  # the first round warms the disk's cache
    low, median, high = np.quantile(ratios, [0.1, 0.5, 0.9])
    record = {
        "machine_busy": busy.share(),
        "candidates": candidates,
        "plan_seconds_median": float(np.median(seconds["plan"][1:])),
        "imports_seconds_median": float(np.median(seconds["imports"][1:])),
        "ratio": {"value": float(median), "low": float(low), "high": float(high), "rounds": ROUNDS},
    }
    keep(RECORD, "python -m benchmarks.plan_speed", record)
    print({name: value for name, value in record.items() if name != "machine"})


if __name__ == "__main__":
    main()
