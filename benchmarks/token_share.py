"""Does a token share lower the loss at equal total FLOPs? `python -m benchmarks.token_share`.

Equal models on a few packages of Python's standard library: with a share of the tokens of each step; with all tokens at
equal training FLOPs; and with all tokens and the reference model's FLOPs on top, as more steps. Seeds begin alike and
read the same windows, so differences are paired. Writes benchmarks/records/token_share.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.keeping import keep
from sparsedial.machine.hardware import BusyWatch
from sparsedial.records.record import plain
from sparsedial.sweep.paired import paired_difference

RECORD = Path(__file__).parent / "records" / "token_share.json"
PACKAGES = ("asyncio", "email", "http", "xml")
TOKENS, SHARE = 1_200_000, "60%"
SIZES = (
    "--shape.layers 2 --shape.d_model 48 --shape.heads 3 --shape.kv_heads 3 --shape.head_dim 16 --shape.d_ff 144"
    " --shape.context 64 --recipe.batch 16 --recipe.learning_rate 0.01 --threads 1"
)


def main() -> None:
    """Train every seed of all three and write the record."""
    parser = argparse.ArgumentParser(description="test loss with and without a token share")
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    text = ",".join(str(Path(os.__file__).parent / package) for package in PACKAGES)
    arms: dict[str, list[dict[str, Any]]] = {"share": [], "all": [], "all_equal_total": []}
    busy = BusyWatch()
    with tempfile.TemporaryDirectory() as out:
        for seed in seeds:
            given = ["--text", text, "--out", out, "--recipe.seed", str(seed), *SIZES.split()]
            chosen = _train([*given, "--tokens", str(TOKENS), "--token-share", SHARE])
            paid = chosen["reference_cost"]
            total = 1 + (paid["training_flops"] + paid["scoring_flops"]) / chosen["flops"]
            arms["share"].append(chosen)
            arms["all"].append(_train([*given, "--tokens", str(TOKENS)]))
            arms["all_equal_total"].append(_train([*given, "--tokens", str(round(total * TOKENS))]))
            print(seed, {name: round(runs[-1]["test_loss"], 4) for name, runs in arms.items()}, flush=True)
    losses = {name: [run["test_loss"] for run in runs] for name, runs in arms.items()}
    by_seed = {name: dict(enumerate(values)) for name, values in losses.items()}
    record = {
        "packages": PACKAGES,
        "share": SHARE,
        "shape": arms["share"][0]["shape"],
        "tokens": {name: runs[0]["tokens"] for name, runs in arms.items()},
        "flops": {name: runs[0]["flops"] for name, runs in arms.items()},
        "reference_cost": arms["share"][0]["reference_cost"],
        "test_loss": losses,
        "share_minus_all": plain(paired_difference(by_seed["share"], by_seed["all"])),
        "share_minus_all_equal_total": plain(paired_difference(by_seed["share"], by_seed["all_equal_total"])),
        "machine_busy": busy.share(),
    }
    keep(RECORD, "python -m benchmarks.token_share", record)
    print(json.dumps({name: record[name] for name in ("share_minus_all", "share_minus_all_equal_total")}))


def _train(words: list[str]) -> Any:
    """The JSON answer of a `train` command."""
    command = [sys.executable, "-m", "sparsedial", "train", *words, "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
