"""The speeds of a split checkpoint, measured again: `python -m benchmarks.split_speeds SMOLLM2 OUT` (two minutes).

SMOLLM2 is what `prune --split-experts` divided and OUT what it wrote (benchmarks/README.md has the command). The dense
checkpoint and the split one at each setting of benchmarks/records/split_speed.json read and write one sequence in
turns, as in the answer of `prune`. Speeds and joules of the record are replaced; losses stay.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.keeping import keep
from benchmarks.split_page import SPEED
from sparsedial.machine.hardware import BusyWatch
from sparsedial.model.checkpoint import load
from sparsedial.model.turned import at_setting
from sparsedial.pruning.speed import Speed, speeds_of
from sparsedial.records.record import plain
from sparsedial.shape.turned import parse_turned

DENSE = "dense"
WRITTEN_BY = ("schema_version", "command", "machine", "record_digest")


def main() -> None:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("smollm2", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    record: dict[str, Any] = json.loads(SPEED.read_text())
    split, busy = load(given.out), BusyWatch()
    settings = {point["setting"]["name"]: point for point in record["dial"]}
    models = {DENSE: load(given.smollm2), **{name: at_setting(split, parse_turned(name)) for name in settings}}
    speeds = speeds_of(models, lambda name: None)
    replace_speeds(record["before"], speeds[DENSE])
    for name, point in settings.items():
        replace_speeds(point["costs"], speeds[name])
    command = f"{record['command'].split('; ')[0]}; speeds by python -m benchmarks.split_speeds SMOLLM2 OUT"
    found = {name: value for name, value in record.items() if name not in WRITTEN_BY}
    keep(SPEED, command, {**found, "machine_busy": busy.share()})


def replace_speeds(costs: dict[str, Any], speed: Speed) -> None:
    """Put the speeds and joules of a model into its costs."""
    costs["prefill_tokens_per_second"] = plain(speed.prefill)
    costs["decode_tokens_per_second"] = plain(speed.decode)
    costs["joules_per_token"] = plain(speed.joules_per_token)


if __name__ == "__main__":
    main()
