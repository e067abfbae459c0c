"""Does `train --dry-run` know how long the run takes? `python -m benchmarks.dry_run`.

Each run's `--dry-run`, then the run itself, as commands of their own, alone and beside a busy core, in turns. Recorded:
the promised seconds over those of the training steps. Writes benchmarks/records/dry_run.json after each pair, so that a
stopped run leaves what it has. To see that it works: `--rounds 1 --runs 1 --record FILE`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.keeping import keep
from benchmarks.waiting import busy_core
from sparsedial.machine.hardware import BusyWatch

RECORD = Path(__file__).parent / "records" / "dry_run.json"
WITHIN = 0.25
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
    """Take turns, and write the record after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=len(RUNS), help="of each round, the first ones")
    parser.add_argument("--record", type=Path, default=RECORD)
    given = parser.parse_args()
    ratios: dict[str, dict[str, list[float]]] = {}
    watched: dict[str, float | None] = {}
    with tempfile.TemporaryDirectory() as work:
        for beside in ("alone", "beside a busy core"):
            busy, rows = BusyWatch(), ratios.setdefault(beside, {})
            with busy_core() if beside != "alone" else contextlib.nullcontext():
                for number in range(given.rounds):
                    for name, words in list(RUNS.items())[: given.runs]:
                        run = [*COMMON, *words.split(), "--recipe.seed", str(number)]
                        rows.setdefault(name, []).append(_ratio(run, Path(work, f"{beside} {name} {number}")))
                        watched[beside] = busy.share()
                        _keep(given.record, ratios, watched)


def _keep(record: Path, ratios: Mapping[str, Mapping[str, list[float]]], watched: Mapping[str, float | None]) -> None:
    worst = max(abs(np.log(value)) for rows in ratios.values() for values in rows.values() for value in values)
    found = {
        "promised_over_taken": ratios,
        "furthest": float(np.exp(worst)),
        "aim": 1 + WITHIN,
        "machine_busy": watched,
    }
    keep(record, "python -m benchmarks.dry_run", found)


def _ratio(words: list[str], out: Path) -> float:
    """The seconds that a run is promised to take, over those that it takes."""
    promised = _train([*words, "--out", str(out), "--dry-run"])["seconds"]
    took = _train([*words, "--out", str(out)])["seconds"]
    print(f"{out.name:<45}{promised:6.2f} s promised, {took:6.2f} s taken", flush=True)
    return promised / took


def _train(words: list[str]) -> Any:
    """The JSON answer of a `train` command."""
    command = [sys.executable, "-m", "sparsedial", "train", *words, "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
