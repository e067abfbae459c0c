"""Does the best learning rate stay put as width grows? `python -m benchmarks.width_transfer [FOLDER]`.

Three widths, dense and sparse, the same depth and tokens; one rate for everything, and rates of matrices that fall with
width (`width_base`, the rule of muP, experts and router among the matrices). Each scan has an interior optimum. Kept:
by how much the optimum moves for each doubling of width, and what the smallest width's rate costs at the largest.
Writes benchmarks/records/width_transfer.json.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.trials import Trials
from sparsedial.machine.hardware import describe
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shape import Shape
from sparsedial.store import write_json
from sparsedial.sweep.rates import Scan
from sparsedial.training.recipe import Recipe

RECORD = Path(__file__).parent / "records" / "width_transfer.json"
WIDTHS, EXPERTS = (32, 64, 128), (0, 32)
LADDER = Ladder(vocab_size=256, context=128)
RECIPE = Recipe(learning_rate=1.0, steps=600, batch=8, context=128)
RATES = (0.004, 0.008, 0.016)


def shape_of(width: int, experts: int) -> Shape:
    """The ladder's shape with two layers: width alone changes."""
    return replace(LADDER.shape(width, experts), layers=2)


def at(scan: Scan, rate: float) -> float:
    """Loss at a rate, on the parabola in log rate through the scan's best point and its neighbours."""
    points = sorted((math.log(value), loss) for value, loss in scan.points if loss is not None)
    best = min(range(len(points)), key=lambda place: points[place][1])
    near = points[max(0, best - 1) : best + 2]
    logs, losses = zip(*near, strict=True)
    return float(np.polyval(np.polyfit(logs, losses, 2), math.log(rate)))


def drift(scans: list[Scan]) -> dict[str, Any]:
    """How far the optimum moves, and what it costs to carry the smallest width's over to the largest."""
    optima = [scan.optimum for scan in scans]
    slope = np.polyfit(np.log2(WIDTHS), np.log2(np.array(optima, dtype=float)), 1)[0]
    return {
        "optima": optima,
        "interior": [scan.interior for scan in scans],
        "log2_rate_per_doubling_of_width": float(slope),
        "loss_of_carrying_over": at(scans[-1], float(optima[0] or 1)) - at(scans[-1], float(optima[-1] or 1)),
        "points": [list(map(list, scan.points)) for scan in scans],
    }


def main(folder: Path) -> None:
    """Scan every width by both rules and write the record."""
    trials, found = Trials(folder), {}
    for experts in EXPERTS:
        for name, base in (("one rate for all", 0), ("matrices' rates fall with width", WIDTHS[0])):
            recipe = replace(RECIPE, width_base=base)
            family = f"{experts} experts" if experts else "dense"
            scans = [
                trials.scan(shape_of(width, experts), recipe, RATES, f"{family}, width {width}, {name}")
                for width in WIDTHS
            ]
            found[f"{family}, {name}"] = drift(scans)
            print(family, name, {k: v for k, v in found[f"{family}, {name}"].items() if k != "points"})
    write_json(
        RECORD,
        {
            "command": "python -m benchmarks.width_transfer",
            "machine": describe(),
            "what": f"widths {WIDTHS}, 2 layers, {RECIPE.steps} steps of {RECIPE.batch} x {RECIPE.context} bytes",
            "scans": found,
        },
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/width_transfer"))
