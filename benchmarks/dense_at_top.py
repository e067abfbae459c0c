"""Is dense predicted rightly at the largest budget? `python -m benchmarks.dense_at_top [FOLDER]`.

Three things decide on it. Learning rates: the reference study's wide dense cells of its largest budget are trained at
half and twice their rate (five minutes of one core). The form, and the prior: each of two forms is fitted to the
study's cells below that budget, with the prior of studies and without it, and held against it. Writes
benchmarks/records/dense_at_top.json.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.keeping import keep
from benchmarks.replay import RECORD as STUDY
from benchmarks.trials import Trials
from sparsedial.law.choose import STUDY_PRIORS, select
from sparsedial.law.fit import fit
from sparsedial.records.grid import round_rate
from sparsedial.records.law import Prior
from sparsedial.records.recipe import Recipe
from sparsedial.records.study import Study, read_finished
from sparsedial.sweep.layout import Layout

RECORD = Path(__file__).parent / "records" / "dense_at_top.json"
SEED = 32001
RATES = ((64, 0.5), (64, 1.0), (64, 2.0), (48, 0.5))  # width, and factor on the study's rate
FORMS = "sparsity_by_tokens", "sparsity_by_size_and_tokens"


def recipe_of(study: Study, width: int, factor: float) -> Recipe:
    """The recipe of a dense cell of the largest budget, at this factor of the study's rate."""
    layout = Layout.of(study.frozen.layout)
    shape = layout.ladder.shape(width, 0)
    steps = layout.steps_for(shape, study.budgets_flops[-1])
    rate = study.learning_rates.model.at(shape, steps * layout.tokens_per_step)
    recipe = Recipe(learning_rate=rate, steps=steps, batch=layout.batch, context=layout.ladder.context, seed=SEED)
    return recipe if factor == 1 else replace(recipe, learning_rate=round_rate(rate * factor))


def rows_of(study: Study) -> dict[str, np.ndarray]:
    """The study's cells as the columns of a fit."""
    rows = [row for row in study.cells_table if row.loss is not None]
    columns = {
        "loss": [row.bounded_loss for row in rows],
        "total_parameters": [row.total_parameters for row in rows],
        "active_parameters": [row.active_parameters for row in rows],
        "tokens": [row.tokens for row in rows],
        "sparsity": [row.sparsity for row in rows],
        "flops": [row.budget_flops for row in rows],
    }
    return {name: np.array(values, dtype=float) for name, values in columns.items()}


def errors_at_top(study: Study, form: str, priors: Mapping[str, Prior]) -> dict[str, Any]:
    """Log errors at the largest budget of a law fitted to the cells below it, and of one fitted to all."""
    rows = rows_of(study)
    top = rows["flops"] == rows["flops"].max()
    held, found = select(rows, top), {}
    for name, fitted in (("below", select(rows, ~top)), ("all", rows)):
        law = fit(fitted, form, bootstrap=0, priors=priors)
        errors = np.log(law.loss(**held) / held["loss"])
        dense = held["sparsity"] == 0
        found[f"fitted_to_{name}"] = {
            "coefficients": law.coefficients,
            "rms_log_error_of_fit": law.rmse_log_loss,
            "rms_log_error": float(np.sqrt(np.mean(errors**2))),
            "mean_log_error": float(np.mean(errors)),
            "dense": dict(
                zip(held["active_parameters"][dense].astype(int).tolist(), errors[dense].tolist(), strict=True)
            ),
        }
    return found


def main(folder: Path) -> None:
    """Train what is missing, fit, and write the record."""
    study, trials = read_finished(STUDY / "study.json"), Trials(folder)
    assert trials.text.digest == study.text.digest, "the built-in text is not the reference study's"
    ladder = study.frozen.layout.ladder
    tasks = [
        trials.task(ladder.shape(width, 0), recipe_of(study, width, factor), f"dense, width {width}, rate x {factor}")
        for width, factor in RATES
    ]
    losses = [
        {
            "width": width,
            "factor": factor,
            "learning_rate": run.recipe.learning_rate,
            "validation_loss": run.validation_loss,
            "cell": next(
                row.loss for row in study.cells_table if (row.d_model, row.experts, row.held_out) == (width, 0, True)
            ),
        }
        for (width, factor), run in zip(RATES, trials.run(tasks), strict=True)
    ]
    forms = {
        form: {name: errors_at_top(study, form, priors) for name, priors in (("no_prior", {}), ("prior", STUDY_PRIORS))}
        for form in FORMS
    }
    keep(RECORD, "python -m benchmarks.dense_at_top", {"seed": SEED, "rates": losses, "forms": forms})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/dense_at_top"))
