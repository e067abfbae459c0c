"""Does a verdict get the best models? Simulated studies whose law is wrong: `python -m benchmarks.selection [studies]`.

In each world 400 studies of ten minutes (no `--time`, three seeds a side) send the law's choice and the grid's best
cell to a selection with 0 to 3 seeds of its own. With 0, the law's choice goes, as before 2026-11-28, or the measured
best, where there is no law. Recorded: the mean regret, by which the model sent is above the best candidate of its
family; how often the 95 % interval holds the true gap of the two models; and how often equal families are called
different. Writes benchmarks/records/selection.json.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace as with_fields

from benchmarks.keeping import keep
from sparsedial.records.law import HeldOut
from sparsedial.runs.simulated import World
from tests.sweep.choosing import CURRENCIES, FAMILIES, REFERENCE, Outcome, study, wrong_world
from tests.sweep.simulation import LAW, WORLD

RECORD = Path(__file__).parent / "records" / "selection.json"
STUDIES = int(sys.argv[1]) if len(sys.argv) > 1 else 400
CHECKED = HeldOut(
    runs=9,
    budgets_flops=(1e12,),
    rmse_log_loss=0.01,
    median_relative_error=0.01,
    max_relative_error=0.03,
    baselines={"last_budget_shape_kept": 0.07},
    law_on_the_same=0.01,
    regret_of_predicted_best=0.0,
)
TRUSTED = with_fields(LAW, held_out=CHECKED)  # so that it goes where nothing is selected
WORLDS: dict[str, World] = {
    "the law is right": wrong_world({}),
    "dense 1 to 3 % above the law, most where wide": wrong_world(REFERENCE),
    "dense 3 to 1 % above the law, most where narrow": wrong_world({"dense": (0.03, 0.01)}),
    "sparse 1 to 3 % above the law, most where wide": wrong_world({"sparse": (0.01, 0.03)}),
    "both 1 to 3 % above the law, most where wide": wrong_world({"dense": (0.01, 0.03), "sparse": (0.01, 0.03)}),
    "all models equal": replace(WORLD, loss=lambda shape, tokens: 1.3, rate_penalty=0.0),
}
RULES = {"law": 0, "measured": 0, "1 seed": 1, "2 seeds": 2, "3 seeds": 3}


def outcomes(world: str, rule: str) -> list[Outcome]:
    """The studies of a world that choose their rivals by a rule."""
    law = None if rule == "measured" else TRUSTED
    return [study(WORLDS[world], seed, RULES[rule], law) for seed in range(STUDIES)]


def summary(found: list[Outcome]) -> dict[str, Any]:
    """Means over studies: regrets in nats with their standard errors, and shares."""
    regrets = {
        (name, family): [one.regret[name][family] for one in found] for name in CURRENCIES for family in FAMILIES
    }
    return {
        name: {
            "regret": {family: float(np.mean(regrets[name, family])) for family in FAMILIES},
            "regret_standard_error": {
                family: float(np.std(regrets[name, family], ddof=1) / len(found) ** 0.5) for family in FAMILIES
            },
            "covered": float(np.mean([one.holds[name] for one in found])),
            "called_different": float(np.mean([one.winner[name] != "undecided" for one in found])),
        }
        for name in CURRENCIES
    }


def measure(pair: tuple[str, str]) -> dict[str, Any]:
    """The summary of a world and a rule."""
    return summary(outcomes(*pair))


def main() -> None:
    """Measure all worlds with all rules, and write the record."""
    pairs = [(world, rule) for world in WORLDS for rule in RULES]
    with ProcessPoolExecutor(int(os.environ.get("WORKERS", "2"))) as pool:
        found = dict(zip(pairs, pool.map(measure, pairs), strict=True))
    table = {world: {rule: found[world, rule] for rule in RULES} for world in WORLDS}
    keep(RECORD, "python -m benchmarks.selection", {"studies": STUDIES, "worlds": table})
    for (world, rule), one in found.items():
        cells = [
            f"{name} {one[name]['regret']['dense']:.4f} {one[name]['regret']['sparse']:.4f}"
            f" covered {one[name]['covered']:.3f} different {one[name]['called_different']:.3f}"
            for name in CURRENCIES
        ]
        print(f"{world}; {rule}: {'; '.join(cells)}")


if __name__ == "__main__":
    main()
