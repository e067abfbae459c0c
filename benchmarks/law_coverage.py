"""How often do the 90 % intervals of a fit hold the truth? `python -m benchmarks.law_coverage [tables] [design,…]`.

Tables are drawn from Besiroglu's law, 3 budgets of 6 sizes unless said, with noise of seven kinds; each is fitted with
200 samples. Asked are coefficients, the exponent of the best size over compute, the best size at the largest budget
and the loss at ten times that budget. Writes benchmarks/records/law_coverage.json.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.keeping import keep
from sparsedial.law.fit import fit
from sparsedial.law.law import Law
from sparsedial.law.literature import PUBLISHED

RECORD = Path(__file__).parent / "records" / "law_coverage.json"
TABLES, SAMPLES, CONFIDENCE = 400, 200, 0.9
PROCESSES = 2
TRUTH = PUBLISHED["chinchilla/besiroglu"].law
SMALLEST, SIZES = 5e7, 6  # sizes of one ladder, so that budgets share them
FIRST_RUNG = {1e19: 0, 6e19: 1, 4e20: 3}  # each budget's sizes lie around its best
NOISE = 0.003  # of the loss
OUTLIERS, OUTLYING = 0.05, (0.03, 0.12)


@dataclass(frozen=True, kw_only=True)
class Design:
    """A kind of table: its budgets, its noise, and what the fit is told."""

    says: str
    budgets: tuple[float, ...] = (1e19, 6e19, 4e20)
    outliers: bool = False
    spread: float = 1.0  # noise of the smallest budget over that of the largest
    of_size: float = 0.0  # share of the noise's variance that runs of one size have in common
    grouped: bool = False
    huber: float | None = None


def draw(design: Design, seed: int) -> dict[str, np.ndarray]:
    """A table of a design."""
    random = np.random.default_rng(seed)
    rung = np.concatenate([FIRST_RUNG[budget] + np.arange(SIZES) for budget in design.budgets])
    flops = np.repeat(design.budgets, SIZES)
    size = SMALLEST * 2.0**rung
    along = np.log(flops / flops.min()) / np.log(flops.max() / flops.min())
    scatter = NOISE * design.spread ** (0.5 - along)
    shared = random.normal(size=rung.max() + 1)[rung]
    noise = design.of_size**0.5 * shared + (1 - design.of_size) ** 0.5 * random.normal(size=len(rung))
    jump = (random.random(len(rung)) < OUTLIERS) * random.uniform(*OUTLYING, len(rung)) * design.outliers
    rows = {"total_parameters": size, "tokens": flops / (6 * size), "flops": flops}
    rows["loss"] = TRUTH.loss(**rows) * np.exp(scatter * noise + jump)
    return {**rows, "group": rung.astype(float)} if design.grouped else rows


def asked(coefficients: np.ndarray, budget: float) -> dict[str, np.ndarray]:
    """The quantities whose intervals are checked. Shapes: coefficients [laws, 5] to [laws]"""
    floor, of_size, of_tokens, alpha, beta = coefficients.T
    exponent = beta / (alpha + beta)
    best = (alpha * of_size / (beta * of_tokens)) ** (1 / (alpha + beta)) * (budget / 6) ** exponent
    later = (alpha * of_size / (beta * of_tokens)) ** (1 / (alpha + beta)) * (10 * budget / 6) ** exponent
    loss = floor + of_size * later**-alpha + of_tokens * (10 * budget / 6 / later) ** -beta
    return {"E": floor, "alpha": alpha, "beta": beta, "exponent": exponent, "best_size": best, "later_loss": loss}


def coefficients(law: Law) -> np.ndarray:
    """Of the law itself. Shapes: [1, 5]"""
    return np.array([[law.coefficients[name] for name in law.as_form.coefficients]])


def cover(name: str, seeds: range, samples: int = SAMPLES) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Whether each interval of each table holds the truth, and how wide it is in units of the truth.

    Shapes: [tables, quantities] twice
    """
    design = DESIGNS[name]
    truth = asked(coefficients(TRUTH), max(design.budgets))
    tail = (1 - CONFIDENCE) / 2
    held, widths, seconds = [], [], []
    for seed in seeds:
        began = time.perf_counter()
        law = fit(draw(design, seed), "chinchilla", bootstrap=samples, seed=seed, huber=design.huber)
        seconds.append(time.perf_counter() - began)
        with np.errstate(all="ignore"):
            found = asked(np.array(law.samples), max(design.budgets))
        ends = {key: np.nanquantile(values, [tail, 1 - tail]) for key, values in found.items()}
        held.append([ends[key][0] <= truth[key][0] <= ends[key][1] for key in truth])
        widths.append([(ends[key][1] - ends[key][0]) / truth[key][0] for key in truth])
    return np.array(held), np.array(widths), seconds


def summary(held: np.ndarray, widths: np.ndarray) -> dict[str, Any]:
    """Coverage and median width of each quantity, and of all."""
    names = list(asked(coefficients(TRUTH), 1.0))
    return {
        "tables": len(held),
        "coverage": float(held.mean()),
        "coverages": dict(zip(names, held.mean(axis=0).tolist(), strict=True)),
        "standard_error": float(np.sqrt(CONFIDENCE * (1 - CONFIDENCE) / len(held))),
        "widths_over_truth": dict(zip(names, np.median(widths, axis=0).tolist(), strict=True)),
    }


def main(tables: int, names: list[str]) -> None:
    """Cover every design and write the record."""
    designs: dict[str, Mapping[str, Any]] = {}
    with ProcessPoolExecutor(PROCESSES) as pool:
        for name in names:
            parts = [range(start, min(start + 20, tables)) for start in range(0, tables, 20)]
            found = list(pool.map(cover, [name] * len(parts), parts))
            held, widths = (np.concatenate([part[at] for part in found]) for at in (0, 1))
            seconds = [value for part in found for value in part[2]]
            row = summary(held, widths)
            designs[name] = {"says": DESIGNS[name].says, **row, "fit_seconds_median": float(np.median(seconds))}
            shares = "  ".join(f"{key} {share:.3f}" for key, share in row["coverages"].items())
            print(f"{name:<22} {row['coverage']:.3f}  {shares}  {np.median(seconds):.3f} s", flush=True)
    if set(names) == set(DESIGNS):
        settings = {"confidence": CONFIDENCE, "samples": SAMPLES, "noise": NOISE}
        keep(RECORD, "python -m benchmarks.law_coverage", {**settings, "designs": designs})


DESIGNS = {
    "independent": Design(says="noise of 0.3 % in every run"),
    "outliers": Design(says="one run in twenty is 3 to 12 % worse", outliers=True),
    "spread": Design(says="noise falls nine-fold from the smallest budget to the largest", spread=9.0),
    "correlated": Design(says="half of the noise's variance is common to runs of one size", of_size=0.5),
    "correlated_grouped": Design(says="the same, and the fit knows the groups", of_size=0.5, grouped=True),
    "two_budgets": Design(says="two budgets of six sizes", budgets=(1e19, 4e20)),
    "huber": Design(says="Huber's threshold is 0.001 in log loss, as in the papers", huber=1e-3),
}


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else TABLES,
        sys.argv[2].split(",") if len(sys.argv) > 2 else list(DESIGNS),
    )
