"""Do fits recover the true law, and do intervals cover it? `python -m benchmarks.law_recovery [repeats]`.

For every form: runs on lines of equal compute, 1 % noise on the loss, 200 repeats; once over budgets as broad as a
published study's, once over those of a study of an hour. Recorded: the fit's error on the noiseless surface, and how
often the 90 % interval covers the true best size at the largest budget (for a law without tokens, which has no best
size, the true loss of the largest model). Writes benchmarks/records/law_recovery.json.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.keeping import keep
from sparsedial.law.fit import fit, refusal
from sparsedial.law.forms import FORMS
from tests.law.test_fit import TRUTH, table

RECORD = Path(__file__).parent / "records" / "law_recovery.json"
REPEATS = int(sys.argv[1]) if len(sys.argv) > 1 else 200
BUDGETS = {"broad": 7, "narrow": 4}  # each is three times the one before
NOISE, CONFIDENCE, SAMPLES, POINTS = 0.01, 0.9, 200, 400


def line(form: str, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Sizes along the largest budget at the middle sparsity, other variables as in the table's first such row."""
    budget, sparsity = rows["flops"].max(), np.unique(rows["sparsity"])[1]
    like = int(np.argmax((rows["flops"] == budget) & (rows["sparsity"] == sparsity)))
    columns = {name: np.full(POINTS, rows[name][like]) for name in FORMS[form].variables}
    size = np.geomspace(budget**0.5 / 40, budget**0.5 * 8, POINTS)
    made = {
        "active_parameters": size,
        "total_parameters": size / (1 - 0.8 * sparsity),
        "tokens": budget / (6 * size),
    }
    return {**columns, **{name: values for name, values in made.items() if name in columns}}


def asked(form: str, losses: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The quantity that an interval is checked on: the best size, or the largest model's loss.

    Shapes: losses [samples, points] to [samples]
    """
    if "tokens" in FORMS[form].variables:
        return sizes[losses.argmin(axis=1)]
    return losses[:, -1]


def recover(form: str, budgets: int) -> dict[str, Any]:
    """Errors and coverage of one form."""
    errors, covered, widths, seconds, refused = [], [], [], [], 0
    values = np.array(TRUTH[form])
    for seed in range(REPEATS):
        rows, exact = table(form, noise=NOISE, seed=seed, budgets=budgets)
        began = time.perf_counter()
        if refusal(rows, form) is not None:  # noise may leave no line with its best size inside
            refused += 1
            continue
        law = fit(rows, form, bootstrap=SAMPLES, seed=seed, confidence=CONFIDENCE)
        seconds.append(time.perf_counter() - began)
        errors.append(float(np.sqrt(np.mean(np.log(law.loss(**rows) / exact) ** 2))))
        columns = line(form, rows)
        sizes = columns.get("active_parameters", columns.get("total_parameters"))
        assert sizes is not None
        truth = asked(form, FORMS[form].loss(values, columns)[None], sizes)[0]
        low, high = np.quantile(asked(form, law.sampled_loss(**columns), sizes), [0.05, 0.95])
        covered.append(low <= truth <= high)
        widths.append(high / low)
    share = float(np.mean(covered))
    return {
        "surface_rms_error_median": float(np.median(errors)),
        "surface_rms_error_worst": float(np.max(errors)),
        "noise": NOISE,
        "asked": "best size at the largest budget"
        if "tokens" in FORMS[form].variables
        else "loss of the largest model",
        "coverage_of_90_percent_interval": share,
        "coverage_standard_error": float(np.sqrt(share * (1 - share) / len(covered))),
        "interval_high_over_low_median": float(np.median(widths)),
        "fit_seconds_median": float(np.median(seconds)),
        "repeats": REPEATS,
        "refused": refused,
    }


def main() -> None:
    """Recover every form and write the record."""
    slowest_first = ("abnar", "zhao", "ludziejewski", "clark_saturating", "sparsity_and_tokens")
    order = [*slowest_first, *(form for form in FORMS if form not in slowest_first)]
    asked_of = [(form, breadth) for form in order for breadth in BUDGETS]
    with ProcessPoolExecutor() as pool:
        rows = pool.map(recover, *zip(*((form, BUDGETS[breadth]) for form, breadth in asked_of), strict=True))
        found = dict(zip(asked_of, rows, strict=True))
    breadths = {
        breadth: {"budgets_span": 3 ** (count - 1), "forms": {form: found[form, breadth] for form in FORMS}}
        for breadth, count in BUDGETS.items()
    }
    for breadth, group in breadths.items():
        for form, row in group["forms"].items():
            share, error = row["coverage_of_90_percent_interval"], row["coverage_standard_error"]
            covered = f"covered {share:.3f} ± {error:.3f}, high over low {row['interval_high_over_low_median']:.2f}"
            surface = f"surface off by {100 * row['surface_rms_error_median']:.2f} %, {row['refused']} refused"
            print(f"{breadth:<7} {form:<26} {covered}, {surface}")
    keep(RECORD, "python -m benchmarks.law_recovery", {"breadths": breadths})


if __name__ == "__main__":
    main()
