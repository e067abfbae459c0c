"""Which form to believe: the simplest that predicts best on runs it was not fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsedial.errors import UserError
from sparsedial.law.fit import Rows, fit, refusal
from sparsedial.law.law import Law

WITHIN = 1.15  # a simpler form is kept while its error is at most this factor of the best
FOLDS = 6


def select(rows: Rows, picked: np.ndarray) -> dict[str, np.ndarray]:
    """Some rows of a table, by mask or places."""
    return {name: values[picked] for name, values in rows.items()}


def compare(rows: Rows, forms: Sequence[str], seed: int = 0) -> tuple[str | None, dict[str, Any]]:
    """The simplest of the forms (given simplest first) whose error on held-out runs is near the best.

    Held out is the largest budget where three remain below it; else each run once, in folds. Gives the form's name,
    None where none can be fitted, and the error or the refusal of each.
    """
    budgets = np.unique(rows["flops"])
    by_budget = len(budgets) > 3
    table: dict[str, Any] = {"rule": "largest budget held out" if by_budget else f"{FOLDS} folds of runs", "forms": {}}
    errors: dict[str, float] = {}
    for form in forms:
        reason = refusal(rows, form)
        if reason is None:
            held = _budget_errors(rows, form, budgets[-1], seed) if by_budget else _fold_errors(rows, form, seed)
            reason = held if isinstance(held, str) else None
            if not isinstance(held, str):
                errors[form] = float(np.median(held))
        table["forms"][form] = {"median_relative_error": errors.get(form), "refused": reason}
    if not errors:
        return None, table
    best = min(errors.values())
    return next(form for form in forms if form in errors and errors[form] <= WITHIN * best), table


def _budget_errors(rows: Rows, form: str, budget: float, seed: int) -> np.ndarray | str:
    top = rows["flops"] == budget
    try:
        law = fit(select(rows, ~top), form, bootstrap=0, seed=seed)
    except UserError as error:
        return error.problem
    return relative_errors(law, select(rows, top))


def _fold_errors(rows: Rows, form: str, seed: int) -> np.ndarray | str:
    count = len(rows["loss"])
    fold = np.random.default_rng(seed).permutation(count) % FOLDS
    errors = np.zeros(count)
    for number in range(FOLDS):
        held = fold == number
        try:
            law = fit(select(rows, ~held), form, bootstrap=0, seed=seed)
        except UserError as error:
            return error.problem
        errors[held] = relative_errors(law, select(rows, held))
    return errors


def relative_errors(law: Law, rows: Rows) -> np.ndarray:
    """|predicted / measured - 1| of each run."""
    return np.abs(law.loss(**rows) / rows["loss"] - 1)


def held_out_check(low: Rows, top: Rows, law: Law) -> dict[str, Any]:
    """How a law fitted to `low` predicts the held-out `top`, beside two baselines on the best run of each sparsity.

    `last_budget_shape_kept`: the best shape of the largest budget in `low`, its loss carried on along its own line in
    log compute (kept as it is where it was trained once). `linear_in_log_compute`: each sparsity's best losses, carried
    on along a line in log compute. `law_on_the_same` is the law's error on those same targets.
    """
    predicted = law.loss(**top)
    residuals = np.log(predicted) - np.log(top["loss"])
    errors = np.abs(predicted / top["loss"] - 1)
    targets = {level: _best(select(top, top["sparsity"] == level)) for level in np.unique(top["sparsity"]).tolist()}
    kept, line, ours = [], [], []
    for level, target in targets.items():
        below = select(low, low["sparsity"] == level)
        if not len(below["loss"]):
            continue
        goal = np.log(target["flops"])
        last = _best(select(below, below["flops"] == below["flops"].max()))
        same = below["active_parameters"] == last["active_parameters"]
        kept.append(_carried(np.log(below["flops"][same]), below["loss"][same], goal) / target["loss"] - 1)
        bests = [_best(select(below, below["flops"] == budget)) for budget in np.unique(below["flops"])]
        points = np.array([[np.log(best["flops"]), best["loss"]] for best in bests])
        line.append(_carried(points[:, 0], points[:, 1], goal) / target["loss"] - 1)
        at_level = predicted[top["sparsity"] == level]
        ours.append(float(at_level.min()) / target["loss"] - 1)
    return {
        "runs": len(errors),
        "budgets_flops": np.unique(top["flops"]).tolist(),
        "rmse_log_loss": float(np.sqrt(np.mean(residuals**2))),
        "median_relative_error": float(np.median(errors)),
        "max_relative_error": float(np.max(errors)),
        "baselines": {
            "last_budget_shape_kept": float(np.median(np.abs(kept))),
            "linear_in_log_compute": float(np.median(np.abs(line))),
        },
        "law_on_the_same": float(np.median(np.abs(ours))),
    }


def _best(rows: Rows) -> dict[str, float]:
    place = int(np.argmin(rows["loss"]))
    return {name: float(values[place]) for name, values in rows.items()}


def _carried(x: np.ndarray, y: np.ndarray, goal: float) -> float:
    """A straight line through the points, at `goal`; the last value where there is one point."""
    if len(np.unique(x)) < 2:
        return float(y[-1])
    slope, level = np.polyfit(x, y, 1)
    return float(level + slope * goal)
