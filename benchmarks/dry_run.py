"""Does `train --dry-run` know how long the run takes? `python -m benchmarks.dry_run`.

Each run's `--dry-run`, then the run itself, as commands of their own, alone and beside a busy core, in turns. Recorded:
the promised seconds over those of the training steps. Writes benchmarks/records/dry_run.json.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.keeping import keep
from benchmarks.waiting import busy_core
from sparsedial.machine.hardware import BusyWatch

RECORD = Path(__file__).parent / "records" / "dry_run.json"
ROUNDS, WITHIN = 3, 0.25
COMMON = [
    "--text",
    "sparsedial",
    "--recipe.batch",
    "16",
    "--recipe.learning_rate",
    "0.005",
    "--shape.layers",
    "2",
    "--shape.heads",
    "2",
    "--shape.kv_heads",
    "2",
    "--shape.context",
    "64",
]
RUNS = {
    "dense, width 64": "--shape.d_model 64 --shape.head_dim 32 --shape.d_ff 192 --tokens 300k",
    "16 experts, width 64": "--shape.d_model 64 --shape.head_dim 32 --shape.d_ff 0 --shape.experts 16 --shape.top_k 2"
    " --shape.d_expert 64 --tokens 250k",
    "64 experts, width 128": "--shape.d_model 128 --shape.head_dim 64 --shape.d_ff 0 --shape.experts 64 --shape.top_k 4"
    " --shape.d_expert 64 --tokens 70k",
}


def main() -> None:
    """Take turns and write the record."""
    ratios: dict[str, dict[str, list[float]]] = {}
    watched = {}
    with tempfile.TemporaryDirectory() as work:
        for beside in ("alone", "beside a busy core"):
            busy, rows = BusyWatch(), {name: [] for name in RUNS}
            with busy_core() if beside != "alone" else contextlib.nullcontext():
                for number in range(ROUNDS):
                    for name, words in RUNS.items():
                        given = [*COMMON, *words.split(), "--recipe.seed", str(number)]
                        out = Path(work, f"{beside} {name} {number}")
                        promised = _train([*given, "--out", str(out), "--dry-run"])["seconds"]
                        took = _train([*given, "--out", str(out)])["seconds"]
                        rows[name].append(promised / took)
                        print(f"{beside:<20}{name:<24}{promised:6.2f} s promised, {took:6.2f} s taken", flush=True)
            ratios[beside], watched[beside] = rows, busy.share()
    worst = max(abs(np.log(value)) for rows in ratios.values() for values in rows.values() for value in values)
    record = {
        "promised_over_taken": ratios,
        "furthest": float(np.exp(worst)),
        "aim": 1 + WITHIN,
        "machine_busy": watched,
    }
    keep(RECORD, "python -m benchmarks.dry_run", record)
    print(f"furthest off by a factor of {record['furthest']:.3f}")


def _train(words: list[str]) -> Any:
    """The JSON answer of a `train` command."""
    command = [sys.executable, "-m", "sparsedial", "train", *words, "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
