"""Training on two threads alone and beside a busy core, by the way threads wait: `python -m benchmarks.waiting`.

Whole processes in turn, each with its own environment. Writes benchmarks/records/waiting.json.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.keeping import keep
from sparsedial import WAITS
from sparsedial.machine.hardware import BusyWatch

RECORD = Path(__file__).parent / "records" / "waiting.json"
ROUNDS, STEP_SECONDS = 5, 0.6
SHAPES = ((48, 0), (48, 16), (192, 16))  # width and experts, 16 x 64 tokens
CANDIDATES: dict[str, tuple[int, dict[str, str]]] = {  # threads, environment
    "spinning, 2 threads": (2, {"GOMP_SPINCOUNT": "300000"}),  # libgomp's own default
    "passive, 2 threads": (2, {"OMP_WAIT_POLICY": "passive"}),
    "1000 spins, 2 threads": (2, {"GOMP_SPINCOUNT": "1000"}),
    "passive, 1 thread": (1, {"OMP_WAIT_POLICY": "passive"}),
}
OURS, THEIRS, SINGLE = "passive, 2 threads", "spinning, 2 threads", "passive, 1 thread"


def main() -> None:
    """Take turns and write the record."""
    seconds: dict[str, dict[str, list[list[float]]]] = {}
    busy_share = {}
    for beside in ("alone", "beside a busy core"):
        busy, rows = BusyWatch(), {name: [] for name in CANDIDATES}
        with busy_core() if beside != "alone" else contextlib.nullcontext():
            for _ in range(ROUNDS):
                for name, (threads, variables) in CANDIDATES.items():
                    rows[name].append(_steps(threads, variables))
        seconds[beside], busy_share[beside] = rows, busy.share()
        for name in CANDIDATES:
            print(f"{beside:<20}{name:<24}", *(f"{1e3 * value:8.2f} ms" for value in np.median(rows[name], axis=0)))
    record = {
        "machine_busy": busy_share,
        "shapes": [f"width {width}, {experts or 'no'} experts, 16 x 64 tokens" for width, experts in SHAPES],
        "mean_step_seconds": {
            beside: {name: _spread(np.array(values)) for name, values in rows.items()}
            for beside, rows in seconds.items()
        },
        "ratios": {
            beside: {
                "passive over spinning": _spread(np.array(rows[OURS]) / np.array(rows[THEIRS])),
                "passive, 2 threads over 1 thread": _spread(np.array(rows[OURS]) / np.array(rows[SINGLE])),
            }
            for beside, rows in seconds.items()
        },
    }
    keep(RECORD, "python -m benchmarks.waiting", record)


def _spread(values: np.ndarray) -> list[dict[str, float]]:
    """The median and the ends over rounds, a table for each shape."""
    low, median, high = np.quantile(values, [0.1, 0.5, 0.9], axis=0).tolist()
    return [{"median": m, "low": a, "high": b} for a, m, b in zip(low, median, high, strict=True)]


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    """A process that keeps a core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _steps(threads: int, variables: dict[str, str]) -> list[float]:
    """Mean seconds of a step of each shape, in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in (*WAITS, "OMP_NUM_THREADS")}
    words = [sys.executable, "-m", "benchmarks.waiting", str(threads)]
    done = subprocess.run(words, env=environment | variables, check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()]


def _measure(threads: int) -> None:
    from sparsedial.machine.timing import measure_in_turn
    from sparsedial.runs.timed import make_step
    from sparsedial.shape.ladder import Ladder

    calls = {
        size: make_step(Ladder(vocab_size=256, context=64).shape(*size), 16, 64, "cpu", threads) for size in SHAPES
    }
    timings = measure_in_turn(calls, rounds=1, round_seconds=STEP_SECONDS)
    print(*(timing.mean_seconds for timing in timings.values()))


if __name__ == "__main__":
    _measure(int(sys.argv[1])) if len(sys.argv) > 1 else main()
