"""The answer of a fit: what its law says, or why there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sparsedial.law.fit import Rows, independent
from sparsedial.law.law import Law
from sparsedial.law.optimum import allocations
from sparsedial.law.runs import Runs
from sparsedial.records.law import Comparison, Fit, HeldOut
from sparsedial.units import human_percent

FEW_RUNS = 5  # fewer held-out runs say little
GUESSES = {
    "last_budget_shape_kept": "keeping the best shape of the last budget",
    "linear_in_log_compute": "a straight line through the best losses",
}
CHOSEN_BY_THEM = (
    "the held-out runs also helped to choose the form, so they are no independent check: fit the chosen form alone to a"
    " table without them, and predict them by it"
)
ONE_BUDGET_SHARE = 0.25  # of the runs, which a suggested held-out set holds


def answer(
    law: Law | None,
    rows: Rows,
    refused: str | None,
    compared: Comparison | None,
    runs: Runs,
    at: Sequence[float] | None = None,
) -> Fit:
    """What `fit` answers for a law of these runs, or for the reason that it was refused.

    `at` are the budgets whose best size and tokens are wanted.
    """
    sampled = law is None or len(law.samples) > 1  # a single sample gives no interval
    split, unsplit = (None, "there is no law") if law is None else allocations(law, rows, at)
    return Fit(
        form=law.form if law else None,
        coefficients=law.coefficients if law else {},
        intervals={} if law is None else dict(law.intervals) if sampled else dict.fromkeys(law.coefficients),
        intervals_reason=None if sampled else "too few bootstrap samples to say how sure the coefficients are",
        confidence=law.confidence if law else None,
        runs=len(rows["loss"]),
        independent_runs=independent(rows),
        rmse_log_loss=law.rmse_log_loss if law else None,
        held_out=law.held_out if law else None,
        held_out_reason=law.held_out_reason if law else "there is no law to check",
        undetermined=(law.undetermined if law else ()) if sampled else None,
        open_coefficients=law.open_coefficients if law else {},
        outliers=law.outliers if law else (),
        misfit=law.misfit if law else None,
        priors=law.priors if law else {},
        allocations=split,
        allocations_reason=unsplit,
        predicted=None,
        refused=refused,
        compared=compared,
        dropped_rows=runs.table.dropped,
        dropped_reason=runs.dropped_reason,
        cells=runs.cells,
        notes=(
            *runs.notes,
            *(check_notes(law.held_out, law.held_out_reason, rows) if law else ()),
            *([CHOSEN_BY_THEM] if law and law.held_out and _compared_several(compared) else []),
        ),
    )


def _compared_several(compared: Comparison | None) -> bool:
    """Whether a form was chosen among several that could be fitted: by errors on held-out runs."""
    return compared is not None and sum(one.refused is None for one in compared.forms.values()) > 1


def check_notes(held: HeldOut | None, why_not: str | None, rows: Rows) -> Iterator[str]:
    """What a reader must know of the check on held-out runs of these rows."""
    if held is None:
        yield f"the law was not checked on held-out runs: {why_not}"
        return
    if held.runs < FEW_RUNS:
        yield _few(held, rows)
    yield from _beaten(held)


def _few(held: HeldOut, rows: Rows) -> str:
    """That a few held-out runs are no check, and what would hold out more."""
    runs = "a single held-out run is" if held.runs == 1 else f"{held.runs} held-out runs are"
    words = f"{runs} too few to check a law"
    if "flops" not in rows:
        return words
    edge = float(np.quantile(rows["flops"], 1 - ONE_BUDGET_SHARE))
    more = int((rows["flops"] >= edge).sum())
    return f"{words}; holding out the runs with flops>={edge:.4g} would leave {more}" if more > held.runs else words


def _beaten(held: HeldOut) -> Iterator[str]:
    """That plain guesses predicted better than the law, where they did."""
    law = held.law_on_the_same
    better = {name: value for name, value in held.baselines.items() if law is not None and value < law}
    if law is None or not better:
        return
    name = min(better, key=lambda key: better[key])
    yield (
        f"on the held-out runs, {GUESSES[name]} predicted better ({human_percent(better[name])}) than the law"
        f" ({human_percent(law)}): do not trust the law beyond its range"
    )
