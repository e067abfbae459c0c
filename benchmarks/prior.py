"""Does a study's prior on the exponent of tokens help? `python -m benchmarks.prior` (half a minute).

The cells of earlier studies lie in benchmarks/data/study_cells.csv. The form that longer studies take is fitted below
the largest budget of each, and to its two lowest budgets, with the prior and without it. Held against the cells of the
largest budget: the errors in log loss, the share of cells inside the 90 % interval of a single run, and the nats by
which the cell and the dense width that are called best lie above the best. Writes benchmarks/records/prior.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars

from benchmarks.keeping import keep
from sparsedial.law.check import held_out_check
from sparsedial.law.choose import PROVEN, STUDY_PRIORS, select
from sparsedial.law.fit import Rows, fit
from sparsedial.records.law import Prior

HERE = Path(__file__).parent
CELLS, RECORD = HERE / "data" / "study_cells.csv", HERE / "records" / "prior.json"
UNSEEN = ("sixth",)  # studies that nobody had looked at when the prior was chosen
FEWEST = 2  # budgets of a fit
VARIABLES = ("active_parameters", "total_parameters", "tokens", "sparsity", "flops", "loss")


def studies() -> dict[str, Rows]:
    """The cells of each study as columns."""
    table = polars.read_csv(CELLS, schema_overrides=dict.fromkeys(VARIABLES, polars.Float64))
    parts = table.partition_by("study", as_dict=True, maintain_order=True)
    return {str(name): {each: part[each].to_numpy() for each in VARIABLES} for (name,), part in parts.items()}


def held_against(rows: Rows, most_flops: float, priors: Mapping[str, Prior]) -> dict[str, Any]:
    """How a law of the budgets up to one predicts the largest."""
    held = select(rows, rows["flops"] == rows["flops"].max())
    below = select(rows, rows["flops"] <= most_flops)
    law = fit(below, PROVEN, priors=priors)
    check, of_dense = (held_out_check(below, some, law) for some in (held, select(held, held["sparsity"] == 0)))
    low, high = law.run_interval(**{name: held[name] for name in law.as_form.variables})
    return {
        "beta": law.coefficients["beta"],
        "rms_log_error": check.rmse_log_loss,
        "mean_log_error": float(np.mean(np.log(law.loss(**held) / held["loss"]))),
        "inside_interval": float(np.mean((low <= held["loss"]) & (held["loss"] <= high))),
        "regret": check.regret_of_predicted_best,
        "dense_regret": of_dense.regret_of_predicted_best,
    }


def main() -> None:
    """Fit all studies, and write the record."""
    found: dict[str, dict[str, Any]] = {}
    for name, rows in studies().items():
        budgets = np.unique(rows["flops"])
        lowest = {"below_the_largest": budgets[-2], "two_lowest": budgets[FEWEST - 1]}
        found[name] = {"unseen": name in UNSEEN, "budgets": len(budgets)} | {
            part: {how: held_against(rows, most, priors) for how, priors in (("without", {}), ("with", STUDY_PRIORS))}
            for part, most in lowest.items()
        }
        for part in lowest:
            for how, row in found[name][part].items():
                print(f"{name:<10} {part:<18} {how:<8}", *(f"{key} {value:.4f}" for key, value in row.items()))
    keep(RECORD, "python -m benchmarks.prior", {"form": PROVEN, "studies": found})


if __name__ == "__main__":
    main()
