"""Does a verdict get the best models? Simulated studies whose law is wrong: `python -m benchmarks.selection [studies]`.

In each world 200 studies of ten minutes (three seeds a side, ten laws in turn) send to their verdicts the law's choice,
the best measured model, or the better of both by a selection with 1 to 3 seeds. Recorded: the mean regret, by which the
model sent is above the best candidate of its family; how often the 95 % interval holds the true gap of the two models;
and how often one family is called better. Writes benchmarks/records/selection.json.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace as with_fields

from benchmarks.keeping import keep
from sparsedial.records.quantities import Family
from tests.sweep.choosing import CHECK, CURRENCIES, EQUAL, FAMILIES, REFERENCE, Outcome, outcome, ready, with_law
from tests.sweep.simulation import LAW

RECORD = Path(__file__).parent / "records" / "selection.json"
STUDIES = int(sys.argv[1]) if len(sys.argv) > 1 else 200
WORLDS: dict[str, dict[Family, tuple[float, float]] | None] = {  # shares by which losses are above the law
    "the law is right": {},
    "dense 1 % above the law, and 1 % more a rung": REFERENCE,
    "both families so": {"dense": (0.01, 0.03), "sparse": (0.01, 0.03)},
    "all models equal": None,
}
RULES = {"law": 0, "measured": 0, "1 seed": 1, "2 seeds": 2, "3 seeds": 3}


def study(world: str, seed: int) -> dict[str, Outcome]:
    """The ends of one study, by rule."""
    errors = WORLDS[world]
    truth, law = (EQUAL, LAW) if errors is None else with_law(errors, seed)
    at = ready(truth, seed, law)
    trusted = with_fields(law, held_out=CHECK)
    return {rule: outcome(at, law if rule == "measured" else trusted, seeds) for rule, seeds in RULES.items()}


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


def measure(world: str) -> dict[str, Any]:
    """The summaries of a world, by rule."""
    found = [study(world, seed) for seed in range(STUDIES)]
    return {rule: summary([one[rule] for one in found]) for rule in RULES}


def main() -> None:
    """Measure all worlds, and write the record."""
    with ProcessPoolExecutor(int(os.environ.get("WORKERS", "2"))) as pool:
        table = dict(zip(WORLDS, pool.map(measure, WORLDS), strict=True))
    keep(RECORD, "python -m benchmarks.selection", {"studies": STUDIES, "worlds": table})
    for world, rules in table.items():
        for rule, one in rules.items():
            cells = [
                f"{name} {one[name]['regret']['dense']:.4f} {one[name]['regret']['sparse']:.4f}"
                f" covered {one[name]['covered']:.3f} called {one[name]['called_different']:.3f}"
                for name in CURRENCIES
            ]
            print(f"{world}; {rule}: {'; '.join(cells)}")


if __name__ == "__main__":
    main()
