"""Does the best learning rate stay the same as width grows? `python -m benchmarks.width_transfer [FOLDER]`.

Three widths, dense and sparse, the same depth and tokens; one rate for everything, and rates of matrices that fall with
width (`width_base`, the rule of muP, experts and router among the matrices). Each scan has an interior optimum under
its first seed, and the other seeds take the same rates. Recorded: by how much the optimum moves for each doubling of
width, with Student's interval over seeds, and what the smallest width's best rate costs at the largest.
Writes benchmarks/records/width_transfer.json.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.keeping import keep
from benchmarks.trials import Trials, mean_and_error
from sparsedial.records.grid import Scan
from sparsedial.records.recipe import Recipe
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shape import Shape

RECORD = Path(__file__).parent / "records" / "width_transfer.json"
WIDTHS, EXPERTS, SEEDS = (32, 64, 128), (0, 32), (0, 1, 2)
LADDER = Ladder(vocab_size=256, context=128)
RECIPE = Recipe(learning_rate=1.0, steps=600, batch=8, context=128)
RATES = (0.004, 0.008, 0.016)
CONFIDENCE = 0.95


def shape_of(width: int, experts: int) -> Shape:
    """The ladder's shape with two layers: width alone changes."""
    return replace(LADDER.shape(width, experts), layers=2)


def scans_of(trials: Trials, shape: Shape, recipe: Recipe, label: str) -> list[Scan]:
    """The scan of the first seed, and the same rates with every other seed."""
    first = trials.scan(shape, replace(recipe, seed=SEEDS[0]), RATES, label)
    rates = [rate for rate, _ in first.points]
    others = [replace(recipe, seed=seed) for seed in SEEDS[1:]]
    return [first, *(trials.scan(shape, other, rates, f"{label}, seed {other.seed}") for other in others)]


def at(scan: Scan, rate: float) -> float:
    """Loss at a rate, on the parabola in log rate through the scan's best point and its neighbours."""
    points = sorted((math.log(value), loss) for value, loss in scan.points if loss is not None)
    best = min(range(len(points)), key=lambda index: points[index][1])
    near = points[max(0, best - 1) : best + 2]
    logs, losses = zip(*near, strict=True)
    return float(np.polyval(np.polyfit(logs, losses, 2), math.log(rate)))


def with_interval(values: Sequence[float]) -> dict[str, float]:
    """Mean over seeds with Student's interval."""
    found = mean_and_error(values)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * found["standard_error"]
    return {"mean": found["mean"], "low": found["mean"] - half, "high": found["mean"] + half}


def drift(scans: list[list[Scan]]) -> dict[str, Any]:
    """How far the optimum moves, and the cost of using the smallest width's optimum. Scans are [width][seed]."""
    optima = np.array([[scan.optimum for scan in row] for row in scans], dtype=float)
    slopes = [float(np.polyfit(np.log2(WIDTHS), np.log2(column), 1)[0]) for column in optima.T]
    costs = [at(last, first) - at(last, own) for last, first, own in zip(scans[-1], optima[0], optima[-1], strict=True)]
    return {
        "optimum_by_width": [float(np.exp(np.log(row).mean())) for row in optima],
        "optima": optima.tolist(),
        "interior": [[scan.interior for scan in row] for row in scans],
        "log2_rate_per_doubling_of_width": with_interval(slopes),
        "loss_of_carrying_over": with_interval(costs),
        "points": [[list(map(list, scan.points)) for scan in row] for row in scans],
    }


def main(folder: Path) -> None:
    """Scan every width by both rules and write the record."""
    trials, found = Trials(folder), {}
    for experts in EXPERTS:
        family = f"{experts} experts" if experts else "dense"
        for rule, base in (("one rate for all", 0), ("matrices' rates fall with width", WIDTHS[0])):
            scans = [
                # at the smallest width both rules are the same, so its runs are found again
                scans_of(
                    trials,
                    shape_of(width, experts),
                    replace(RECIPE, width_base=base if width > base else 0),
                    f"{family}, width {width}, {rule}",
                )
                for width in WIDTHS
            ]
            found[f"{family}, {rule}"] = row = drift(scans)
            print(family, rule, {key: value for key, value in row.items() if key != "points"}, flush=True)
    keep(
        RECORD,
        "python -m benchmarks.width_transfer",
        {
            "what": f"widths {WIDTHS}, 2 layers, {RECIPE.steps} steps of {RECIPE.batch} x {RECIPE.context} bytes, "
            f"{len(SEEDS)} seeds, validation loss",
            "confidence": CONFIDENCE,
            "scans": found,
        },
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/width_transfer"))
