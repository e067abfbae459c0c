"""Clark's law refitted to his released runs: `python -m benchmarks.routed_lms FOLDER`, FOLDER with curves.csv.gz.

The file is `data/` of google-deepmind/scaling_laws_for_routing (Apache-2.0). For each router: the last step of its runs
with one expert a token in every other layer, and the dense ones; coefficients beside the published, and the two largest
sizes predicted from the smaller ones. Writes benchmarks/records/routed_lms.json.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.keeping import keep
from sparsedial.law.choose import relative_errors, select
from sparsedial.law.fit import fit
from sparsedial.law.literature import PUBLISHED
from sparsedial.law.table import read_table

RECORD = Path(__file__).parent / "records" / "routed_lms.json"
ROUTERS = {"S-Base": "clark/s-base", "RL-R": "clark/rl-r", "Hash": "clark/hash"}
LARGEST_SIZES = 2
COLUMNS = {"loss": "loss_validation", "active_parameters": "dense_parameter_count", "experts": "num_experts"}


def last_steps(path: Path, router: str) -> dict[str, np.ndarray]:
    """One row per run, for its last step: the runs of one router, and the dense runs."""
    where = f"(router_type == '{router}' or router_type == 'Dense') and routing_frequency == 0.5 and k == 1"
    where += " and loss_validation > 0"  # a few rows have none
    rows = read_table(path, COLUMNS, where)
    last = [
        np.flatnonzero(rows["hyper_id"] == run)[np.argmax(rows["step"][rows["hyper_id"] == run])]
        for run in np.unique(rows["hyper_id"])
    ]
    return select(rows, np.array(last))


def refit(path: Path, router: str) -> dict[str, Any]:
    """One router's law, its published coefficients, and the largest models predicted from the smaller."""
    rows = last_steps(path, router)
    law, known = fit(rows, "clark", bootstrap=200), PUBLISHED[ROUTERS[router]]
    sizes = np.unique(rows["active_parameters"])
    large = rows["active_parameters"] >= sizes[-LARGEST_SIZES]
    below = fit(select(rows, ~large), "clark", bootstrap=0)
    errors = relative_errors(below, select(rows, large))
    return {
        "runs": len(rows["loss"]),
        "coefficients": law.coefficients,
        "intervals_90": law.intervals,
        "published": known.coefficients,
        "rms_log_loss_refit": float(np.sqrt(np.mean(np.log(law.loss(**rows) / rows["loss"]) ** 2))),
        "rms_log_loss_published": float(np.sqrt(np.mean(np.log(known.law.loss(**rows) / rows["loss"]) ** 2))),
        "undetermined": list(law.undetermined),
        "largest_sizes": sizes[-LARGEST_SIZES:].tolist(),
        "largest_runs": int(large.sum()),
        "largest_median_relative_error": float(np.median(errors)),
        "largest_max_relative_error": float(errors.max()),
    }


def main(folder: Path) -> None:
    """Refit the three routers and write the record."""
    routers = {router: refit(folder / "curves.csv.gz", router) for router in ROUTERS}
    keep(RECORD, "python -m benchmarks.routed_lms FOLDER", {"routers": routers})
    for router, row in routers.items():
        print(router, row["runs"], "runs")
        for name, value in row["coefficients"].items():
            low, high = row["intervals_90"][name]
            print(f"  {name}: {value:.4g} ({low:.4g} to {high:.4g}), published {row['published'][name]:.4g}")
        print({name: value for name, value in row.items() if isinstance(value, float)}, row["undetermined"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
