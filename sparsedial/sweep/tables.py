"""The tables of a study's record, from which the report draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sparsedial.law.law import Law
from sparsedial.shape.counts import active_parameters
from sparsedial.store import RunStore
from sparsedial.sweep.execute import read_metrics
from sparsedial.sweep.grid import RUNGS, Cell, Layout
from sparsedial.sweep.rates import RateModel, Scan

CURVE_POINTS = 120


def cells_table(
    layout: Layout, done: Mapping[Cell, dict[str, Any]], rates: RateModel, below: Law | None
) -> list[dict[str, Any]]:
    """A row for every cell; cells of the largest budget carry what the law of the others predicted."""
    return [_cell_row(layout, cell, record, rates, below) for cell, record in done.items()]


def _cell_row(
    layout: Layout, cell: Cell, record: dict[str, Any], rates: RateModel, below: Law | None
) -> dict[str, Any]:
    held_out = cell.budget_flops == layout.budgets[-1]
    predicted = low = high = None
    if held_out and below is not None:
        variables = below.variables(layout.shape(cell), record["tokens"])
        predicted = float(below.loss(**variables)[0])
        low, high = (float(bound[0]) for bound in below.run_interval(**variables))
    optimum = rates.rate(layout.shape(cell), record["tokens"])
    return {
        **_run_row(record),
        "d_model": cell.d_model,
        "budget_flops": cell.budget_flops,
        "seed_losses": record.get("seed_losses", [record["validation_loss"]]),
        "learning_rate_optimum_distance": math.log2(record["recipe"]["learning_rate"] / optimum),
        "held_out": held_out,
        "predicted_loss": predicted,
        "predicted_low": low,
        "predicted_high": high,
    }


def _run_row(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "hash": record["hash"],
        "d_model": record["shape"]["d_model"],
        "layers": record["shape"]["layers"],
        "experts": record["shape"]["experts"],
        "top_k": record["shape"]["top_k"],
        "sparsity": record["sparsity"]["experts"],
        "active_parameters": record["active_parameters"],
        "total_parameters": record["total_parameters"],
        "tokens": record["tokens"],
        "flops": record["flops"],
        "loss": record["validation_loss"],
        "bits_per_byte": record["validation_bits_per_byte"],
        "seconds": record["seconds"],
        "joules": record["joules"],
        "alone": record["alone"],
        "learning_rate": record["recipe"]["learning_rate"],
        "status": record["status"],
        "reason": record["reason"],
        "expert_load": record["expert_load"],
        "repeats": record["repeats"],
        "seed": record["recipe"]["seed"],
    }


def verdict_runs(
    store: RunStore, records: Mapping[str, Mapping[str, Sequence[dict[str, Any]]]]
) -> list[dict[str, Any]]:
    """A row for every run of a verdict, with its training curve."""
    return [
        {
            **_run_row(record),
            "currency": currency,
            "family": family,
            "test_loss": record["test_loss"],
            "curve": training_curve(store, record),
        }
        for currency, by_family in records.items()
        for family, runs in by_family.items()
        for record in runs
    ]


def training_curve(store: RunStore, record: Mapping[str, Any]) -> list[list[float]]:
    """Tokens and training loss, averaged into at most a hundred-odd points."""
    lines = [line for line in read_metrics(store, record["hash"]) if line["loss"] is not None]
    chunks = np.array_split(
        np.array([[line["index"] + 1, line["loss"]] for line in lines]), min(CURVE_POINTS, len(lines))
    )
    tokens = record["recipe"]["batch"] * record["recipe"]["context"]
    return [[float(chunk[-1, 0] * tokens), float(chunk[:, 1].mean())] for chunk in chunks]


def rates_record(scans: Sequence[Scan], rates: RateModel) -> dict[str, Any]:
    """Scans and their model, as JSON."""
    return {"scans": [scan.record() for scan in scans], "model": rates.record()}


def law_curves(layout: Layout, done: Mapping[Cell, dict[str, Any]], law: Law | None) -> list[dict[str, Any]]:
    """The law's loss along every line of equal budget and sparsity, between the sizes that were trained there."""
    if law is None:
        return []
    curves = []
    for budget in layout.budgets:
        for experts in layout.experts:
            widths = [cell.d_model for cell in done if (cell.experts, cell.budget_flops) == (experts, budget)]
            rungs = [rung for rung in RUNGS if min(widths, default=1) <= rung <= max(widths, default=0)]
            if rungs:
                curves.append(_curve(layout, law, budget, experts, rungs))
    return curves


def _curve(layout: Layout, law: Law, budget: float, experts: int, rungs: Sequence[int]) -> dict[str, Any]:
    shapes = [layout.ladder.shape(rung, experts) for rung in rungs]
    points = [law.variables(shape, layout.steps_for(shape, budget) * layout.tokens_per_step) for shape in shapes]
    columns = {name: np.array([point[name] for point in points]) for name in points[0]}
    low, high = law.interval(**columns)
    return {
        "budget_flops": budget,
        "experts": experts,
        "active_parameters": [active_parameters(shape) for shape in shapes],
        "loss": law.loss(**columns).tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
    }
