"""How often do the intervals of a plan hold the truth? `python -m benchmarks.plan_coverage [tables]`.

The law of the reference study is taken as the truth. Its runs are drawn again with the scatter that was measured, each
table is fitted with 200 samples and, as that law, without a prior, and plans for the study's largest budget and for ten
times that are asked for on the study's machine. Compared with what the truth gives for the same question: the gap of
the best dense to the best sparse model, the predicted loss of the recommended model, the best sparsity and size, and
the crossover in seconds. How intervals with a prior hold what was measured is in benchmarks.prior.
Writes benchmarks/records/plan_coverage.json.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from benchmarks.keeping import keep
from sparsedial.law.fit import fit
from sparsedial.law.law import Law
from sparsedial.law.runs import Reading, read_runs
from sparsedial.planning.answer import answer
from sparsedial.planning.budget import Budget, Constraints
from sparsedial.planning.costs import Costs
from sparsedial.records.plan import Plan
from sparsedial.records.quantities import Currency
from sparsedial.settings import fill
from sparsedial.shape.shapes import Shapes
from sparsedial.verbs.plan.plan import PlanSettings
from sparsedial.verbs.plan.space import find_law, space

HERE = Path(__file__).parent
STUDY, RECORD = HERE / "records" / "reference_study", HERE / "records" / "plan_coverage.json"
TABLES, SAMPLES, PROCESSES = 200, 200, 2
BUDGETS: dict[str, tuple[Currency, float]] = {
    "largest budget": ("flops", 1.6e12),
    "ten times that": ("flops", 1.6e13),
    "4 seconds": ("seconds", 4.0),  # near the crossover
}
HELD, MISSED, NONE = "held", "missed", "no interval"


@cache
def world() -> tuple[Law, dict[str, np.ndarray], Shapes, Costs]:
    """The true law, the runs of the study, and the shapes and costs that its plans choose from."""
    found = find_law(str(STUDY))
    rows = read_runs(Reading(path=STUDY, columns={}), (found.law.form,)).table.rows
    return found.law, rows, *space(fill(PlanSettings, {"flops": 1.0}, "plan"), found)


def asked(law: Law, name: str) -> Plan:
    """The plan for one of the budgets."""
    currency, value = BUDGETS[name]
    _, _, shapes, costs = world()
    return answer(law, "fitted", shapes, Budget(currency=currency, value=value), Constraints(), costs, others=False)


def verdicts(truth: Plan, plan: Plan, true_loss: float) -> Iterator[tuple[str, str]]:
    """Whether each interval of a plan holds what is true."""

    def held(value: float | None, low: float | None, high: float | None) -> str:
        if value is None or (low is None and high is None):
            return NONE
        return HELD if (-np.inf if low is None else low) <= value <= (np.inf if high is None else high) else MISSED

    assert truth.gap_to_dense is not None
    assert plan.gap_to_dense is not None
    yield "gap to dense", held(truth.gap_to_dense.mean, plan.gap_to_dense.low, plan.gap_to_dense.high)
    yield "predicted loss", held(true_loss, plan.predicted_loss.low, plan.predicted_loss.high)
    best = plan.near_optimal.sampled
    assert best is not None
    yield "best sparsity", held(truth.sparsity.experts, *best.sparsity)
    yield "best active parameters", held(truth.active_parameters, *best.active_parameters)
    there, found = truth.crossover, plan.crossover
    yield "crossover", held(there and there.value, found and found.low, found and found.high)
    yield "winner", "undecided" if plan.winner == "undecided" else "right" if plan.winner == truth.winner else "wrong"


def judge(seed: int, names: Sequence[str] = tuple(BUDGETS)) -> list[tuple[str, str, str]]:
    """The verdicts over one table, by budget and quantity."""
    true, rows, *_ = world()
    scatter = np.random.default_rng(seed).normal(0, true.rmse_log_loss, len(rows["loss"]))
    drawn = true.loss(**{name: rows[name] for name in true.as_form.variables}) * np.exp(scatter)
    law = fit({**rows, "loss": drawn}, true.form, bootstrap=SAMPLES, seed=seed)
    law = replace(law, counting=true.counting, fitted_range=true.fitted_range)
    answers = []
    for name in names:
        plan = asked(law, name)
        loss = float(np.ravel(true.loss(**true.variables(plan.shape, plan.tokens)))[0])
        answers += [(name, what, how) for what, how in verdicts(_truth(name), plan, loss)]
    return answers


@cache
def _truth(name: str) -> Plan:
    return asked(replace(world()[0], samples=()), name)


def main(tables: int) -> None:
    """Judge all tables and write the record."""
    with ProcessPoolExecutor(PROCESSES) as pool:
        counts = Counter(each for found in pool.map(judge, range(tables), chunksize=5) for each in found)
    shares: dict[str, dict[str, dict[str, float]]] = {}
    for (name, what, how), number in sorted(counts.items()):
        shares.setdefault(name, {}).setdefault(what, {})[how] = number / tables
    for name, quantities in shares.items():
        for what, row in quantities.items():
            print(f"{name:<16} {what:<24}", "  ".join(f"{how} {share:.3f}" for how, share in row.items()))
    settings = {"tables": tables, "samples": SAMPLES, "confidence": world()[0].confidence}
    keep(RECORD, "python -m benchmarks.plan_coverage", {**settings, "shares": shares})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else TABLES)
