"""Muon beside AdamW at equal FLOPs and at equal seconds, each tuned: `python -m benchmarks.optimizers [FOLDER]`.

One dense and one sparse shape. The learning rate of each optimizer is scanned to an interior optimum; then both are
trained with five fresh seeds, once with the same steps (equal FLOPs: Muon's own arithmetic is not counted, as no
optimizer's is) and once with Muon's steps cut to AdamW's seconds, measured in turn. Writes
benchmarks/records/optimizers.json.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.keeping import keep
from benchmarks.trials import Trials, mean_and_error
from sparsedial.records.recipe import Recipe
from sparsedial.records.record import plain
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shape import Shape
from sparsedial.sweep.verdict import welch_gap

RECORD = Path(__file__).parent / "records" / "optimizers.json"
LADDER = Ladder(vocab_size=256, context=128)
RECIPE = Recipe(learning_rate=1.0, steps=1000, batch=8, context=128)
SHAPES = {"dense, width 48": LADDER.shape(48, 0), "32 experts, width 48": LADDER.shape(48, 32)}
RATES = {"adamw": (0.005, 0.01, 0.02), "muon": (0.005, 0.01, 0.02)}
SEEDS = range(101, 106)


def compare(trials: Trials, name: str, shape: Shape) -> dict[str, Any]:
    """One shape: both optimizers are tuned, then compared."""
    recipes = {}
    scans = {}
    for optimizer, rates in RATES.items():
        base = replace(RECIPE, optimizer=optimizer)  # type: ignore[arg-type]
        scan = trials.scan(shape, base, rates, f"{name}, {optimizer}")
        scans[optimizer] = {"points": list(map(list, scan.points)), "optimum": scan.optimum, "interior": scan.interior}
        recipes[optimizer] = replace(base, learning_rate=float(f"{scan.optimum:.3g}"))
    timed = trials.in_turn(
        [
            trials.task(shape, replace(recipe, steps=400, seed=100), f"{name}, {optimizer}, timed", alone=True)
            for optimizer, recipe in recipes.items()
        ]
    )
    seconds = {optimizer: run.median_step_seconds for optimizer, run in zip(recipes, timed, strict=True)}
    ratio = seconds["muon"] / seconds["adamw"]
    fewer = replace(recipes["muon"], steps=round(RECIPE.steps / ratio))
    losses = {}
    for what, recipe in (*recipes.items(), ("muon at adamw's seconds", fewer)):
        tasks = [trials.task(shape, replace(recipe, seed=seed), f"{name}, {what}, seed {seed}") for seed in SEEDS]
        losses[what] = [run.validation_loss for run in trials.run(tasks)]
    return {
        "scans": scans,
        "step_seconds": seconds,
        "muon_step_over_adamw_step": ratio,
        "losses": {what: {**mean_and_error(values), "seeds": values} for what, values in losses.items()},
        "adamw_minus_muon_at_equal_flops": plain(welch_gap(losses["adamw"], losses["muon"])),
        "adamw_minus_muon_at_equal_seconds": plain(welch_gap(losses["adamw"], losses["muon at adamw's seconds"])),
    }


def main(folder: Path) -> None:
    """Compare on every shape and write the record."""
    trials = Trials(folder)
    found = {name: compare(trials, name, shape) for name, shape in SHAPES.items()}
    what = f"{RECIPE.steps} steps of {RECIPE.batch} x {RECIPE.context} bytes, one thread, five seeds, validation loss"
    keep(
        RECORD,
        "python -m benchmarks.optimizers",
        {"what": what, "shapes": found},
    )
    for name, row in found.items():
        print(name, {key: value for key, value in row.items() if key not in ("scans", "losses")})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/optimizers"))
