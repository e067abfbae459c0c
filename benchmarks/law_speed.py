"""A fit of Abnar's form to 200 runs beside the papers' grid of L-BFGS starts: `python -m benchmarks.law_speed`.

The papers start L-BFGS from every point of a grid (437,400 starts here), on the Huber loss of log residuals at 1e-3.
The whole grid would take hours, so a random part of it is run, and its time scaled up; both sides are scored by that
same Huber loss. Writes benchmarks/records/law_speed.json.
"""

from __future__ import annotations

import itertools
import math
import time
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import huber

from benchmarks.keeping import keep
from sparsedial.law.fit import fit
from sparsedial.law.forms import FORMS
from sparsedial.law.literature import PUBLISHED
from sparsedial.machine.hardware import BusyWatch

RECORD = Path(__file__).parent / "records" / "law_speed.json"
DELTA = 1e-3
PART = 120  # of the grid's starts
ROUNDS = 5
LOGS, POWERS, SIGNED = (0.0, 10.0, 20.0), np.arange(0, 1.26, 0.25), (-1.0, -0.5, 0.0, 0.5, 1.0)  # Abnar 2025, fit setup
FORM = FORMS["abnar"]


def runs(seed: int = 0) -> dict[str, np.ndarray]:
    """200 runs of Abnar's published law on his own budgets and sparsities, 1 % noise."""
    random = np.random.default_rng(seed)
    flops = random.choice([3e19, 6e19, 1e20, 3e20, 1e21], 200)
    sparsity = random.choice([0, 0.25, 0.5, 0.75, 0.9, 0.95], 200)
    active = np.sqrt(flops / 6 / 20) * 2.0 ** random.uniform(-2, 2, 200)
    rows = {"total_parameters": active / (1 - sparsity), "tokens": flops / (6 * active), "sparsity": sparsity}
    rows["loss"] = PUBLISHED["abnar"].law.loss(**rows) * np.exp(random.normal(0, 0.01, 200))
    return {**rows, "flops": flops, "active_parameters": active}


def objective(values: np.ndarray, rows: dict[str, np.ndarray]) -> float:
    """The papers' objective: Huber loss of log residuals, summed. `values` in the form's order."""
    with np.errstate(all="ignore"):
        residuals = np.log(FORM.loss(values, rows)) - np.log(rows["loss"])
    total = float(huber(DELTA, residuals).sum())
    return total if math.isfinite(total) else 1e6


def gradient(point: np.ndarray, rows: dict[str, np.ndarray]) -> tuple[float, np.ndarray]:
    """The objective and its exact slopes, so that the peer is not slowed by numeric ones.

    `point` is log a, b, c, d, e, then alpha, beta, gamma, delta, lambda.
    """
    size, tokens, active = rows["total_parameters"], rows["tokens"], 1 - rows["sparsity"]
    scales = np.exp(np.minimum(point[:5], 200))
    with np.errstate(all="ignore"):
        terms = FORM.design(point[5:], rows) * scales
        loss = terms.sum(axis=1)
        residuals = np.log(loss) - np.log(rows["loss"])
        outer = np.clip(residuals, -DELTA, DELTA) / loss
        logs = np.log(size), np.log(tokens), np.log(active)
        slopes = [outer @ terms[:, index] for index in range(5)]
        slopes += [-outer @ (terms[:, 0] * logs[0]), -outer @ (terms[:, 1] * logs[1]), -outer @ (terms[:, 3] * logs[0])]
        slopes += [-outer @ (terms[:, 3] * logs[2]), -outer @ (terms[:, 2] * logs[2])]
        total = float(huber(DELTA, residuals).sum())
    if not math.isfinite(total):
        return 1e6, np.zeros(10)
    return total, np.nan_to_num(np.array(slopes))


def main() -> None:
    """Time both in turn and write the record."""
    rows, busy = runs(), BusyWatch()
    grid = list(itertools.product(LOGS, LOGS, LOGS, LOGS, POWERS, POWERS, POWERS, SIGNED, SIGNED))
    picked = np.random.default_rng(0).permutation(len(grid))[:PART]
    parts = np.array_split(picked, ROUNDS)
    grid_seconds, ours_seconds, boot_seconds, best = [], [], [], math.inf
    ours = math.inf
    for part in parts:
        began = time.perf_counter()
        for index in part:
            logs, powers = grid[index][:4], grid[index][4:]
            start = np.array([*logs, 1.5, *powers])
            found = minimize(gradient, start, args=(rows,), jac=True, method="L-BFGS-B", options={"maxiter": 1000})
            best = min(best, float(found.fun))
        grid_seconds.append((time.perf_counter() - began) / len(part))
        began = time.perf_counter()
        law = fit(rows, "abnar", bootstrap=0, huber=DELTA)
        ours_seconds.append(time.perf_counter() - began)
        ours = objective(np.array([law.coefficients[name] for name in FORM.coefficients]), rows)
        began = time.perf_counter()
        fit(rows, "abnar", bootstrap=1000, huber=DELTA)
        boot_seconds.append(time.perf_counter() - began)
    whole = float(np.median(grid_seconds)) * len(grid)
    record = {
        "machine_busy": busy.share(),
        "starts_of_the_grid": len(grid),
        "starts_run": PART,
        "seconds_of_one_start": _spread(grid_seconds),
        "seconds_of_the_grid_scaled_up": whole,
        "seconds_of_our_fit": _spread(ours_seconds),
        "seconds_of_our_fit_with_1000_samples": _spread(boot_seconds),
        "speed_against_the_grid": whole / float(np.median(ours_seconds)),
        "speed_against_the_grid_with_1000_samples": whole / float(np.median(boot_seconds)),
        "speed_against_the_starts_run": float(np.median(grid_seconds)) * PART / float(np.median(ours_seconds)),
        "objective_of_our_fit": ours,
        "objective_of_the_starts_run": best,
    }
    keep(RECORD, "python -m benchmarks.law_speed", record)
    for name, value in record.items():
        if name not in ("machine", "command"):
            print(name, value)


def _spread(seconds: list[float]) -> dict[str, float]:
    low, median, high = np.quantile(seconds, [0.1, 0.5, 0.9])
    return {"median": float(median), "low": float(low), "high": float(high), "count": len(seconds)}


if __name__ == "__main__":
    main()
