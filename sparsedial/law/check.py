"""How a law predicts runs that were held out, beside plain guesses, which it must beat to be worth having."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sparsedial.law.choose import relative_errors, select
from sparsedial.law.fit import Rows
from sparsedial.law.law import Law
from sparsedial.records.law import HeldOut

SAME_SIZE = 0.02  # sizes that agree within this share are one shape: digitised tables are no more exact


def held_out_check(low: Rows, top: Rows, law: Law) -> HeldOut:
    """How a law fitted to `low` predicts the held-out `top`, beside plain guesses at the best run of each sparsity.

    `law_on_the_same` is the law's error on the runs that are guessed.
    """
    predicted = law.loss(**top)
    residuals = np.log(predicted) - np.log(top["loss"])
    errors = relative_errors(law, top)
    baselines, ours = _guesses(low, top, predicted)
    return HeldOut(
        runs=len(errors),
        budgets_flops=tuple(np.unique(top["flops"]).tolist()) if "flops" in top else (),
        rmse_log_loss=float(np.sqrt(np.mean(residuals**2))),
        median_relative_error=float(np.median(errors)),
        max_relative_error=float(np.max(errors)),
        baselines=baselines,
        law_on_the_same=ours,
        regret_of_predicted_best=float(top["loss"][predicted.argmin()] - top["loss"].min()),
    )


def _guesses(low: Rows, top: Rows, predicted: np.ndarray) -> tuple[dict[str, float], float | None]:
    """Median relative errors of the guesses at the best held-out run of each sparsity, and of the law at the same runs.

    `last_budget_shape_kept`: the loss of the best shape of the largest budget in `low`, extrapolated linearly in log
    compute (unchanged where the shape was trained once). `linear_in_log_compute`: each sparsity's best losses,
    extrapolated linearly in log compute. A table without sparsity, as of dense runs, has one level.
    """
    size = next((name for name in ("active_parameters", "total_parameters") if name in top), None)
    if "flops" not in top or size is None:
        return {}, None
    kept, line, ours = [], [], []
    for below, target, places in _levels(low, top):
        goal = np.log(target["flops"])
        last = _best(select(below, below["flops"] == below["flops"].max()))
        same = np.abs(below[size] / last[size] - 1) <= SAME_SIZE
        kept.append(_extrapolated(np.log(below["flops"][same]), below["loss"][same], goal) / target["loss"] - 1)
        frontier = _frontier(below)
        line.append(_extrapolated(np.log(frontier["flops"]), frontier["loss"], goal) / target["loss"] - 1)
        ours.append(float(predicted[places].min()) / target["loss"] - 1)
    if not ours:
        return {}, None  # no sparsity occurs on both sides
    errors = {"last_budget_shape_kept": kept, "linear_in_log_compute": line}
    return {name: float(np.median(np.abs(values))) for name, values in errors.items()}, float(np.median(np.abs(ours)))


def _levels(low: Rows, top: Rows) -> Iterator[tuple[Rows, dict[str, float], np.ndarray]]:
    """The fitted runs of each sparsity that was held out too, the best held-out run, and the places of all of these."""
    name = next((name for name in ("sparsity", "experts") if name in top), None)
    levels = [None] if name is None else np.unique(top[name]).tolist()
    for level in levels:
        places = np.ones(len(top["loss"]), dtype=bool) if name is None else top[name] == level
        below = low if name is None else select(low, low[name] == level)
        if len(below["loss"]):
            yield below, _best(select(top, places)), places


def _frontier(rows: Rows) -> Rows:
    """The best run of each budget, where it is better than those of all smaller budgets."""
    order = np.lexsort((rows["loss"], rows["flops"]))
    losses = rows["loss"][order]
    before = np.concatenate([[np.inf], np.minimum.accumulate(losses)[:-1]])
    return select(rows, order[losses < before])


def _best(rows: Rows) -> dict[str, float]:
    index = int(np.argmin(rows["loss"]))
    return {name: float(values[index]) for name, values in rows.items()}


def _extrapolated(x: np.ndarray, y: np.ndarray, goal: float) -> float:
    """A straight line through the points, at `goal`; the last value where there is one point."""
    if len(np.unique(x)) < 2:
        return float(y[-1])
    slope, level = np.polyfit(x, y, 1)
    return float(level + slope * goal)
