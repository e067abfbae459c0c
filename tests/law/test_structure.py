"""Runs far from the law are listed, and a form that leaves structure in its residuals is called a misfit."""

from __future__ import annotations

import numpy as np
import pytest

from sparsedial.law.fit import fit
from sparsedial.law.law import Law
from tests.law.test_fit import table


def grid(noise: float = 0.003, seed: int = 0) -> dict[str, np.ndarray]:
    """48 dense runs, 6 sizes by 8 numbers of tokens."""
    size, tokens = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e8, 1e11, 8)))
    loss = 1.7 + 400 / size**0.34 + 1500 / tokens**0.36
    random = np.random.default_rng(seed)
    return {"total_parameters": size, "tokens": tokens, "loss": loss * np.exp(random.normal(0, noise, len(size)))}


def fitted(rows: dict[str, np.ndarray]) -> Law:
    return fit(rows, "chinchilla", bootstrap=2)


def test_bad_runs_are_listed_by_row_with_their_distance():
    rows = grid()
    rows["loss"][4] *= 1.05
    rows["loss"][30] *= 0.9
    law = fitted(rows)
    assert [outlier.row for outlier in law.outliers] == [31, 5]
    below, above = law.outliers
    assert above.spreads > 10
    assert below.spreads / above.spreads == pytest.approx(np.log(0.9) / np.log(1.05), rel=0.15)
    assert above.loss == pytest.approx(rows["loss"][4])
    assert above.predicted_loss == pytest.approx(rows["loss"][4] / 1.05, rel=0.01)


def test_a_run_that_is_off_by_nothing_but_rounding_is_no_outlier():
    rows = grid(noise=0.0)
    rows["loss"] = rows["loss"].round(4)
    assert fitted(rows).outliers == ()


@pytest.mark.parametrize("variable", ["total_parameters", "tokens"])
def test_a_bend_that_the_form_has_not_is_called_a_misfit_in_its_variable(variable):
    rows = grid()
    along = np.log(rows[variable])
    bend = np.cos(2 * np.pi * (along - along.min()) / np.ptp(along))
    law = fitted({**rows, "loss": rows["loss"] * np.exp(0.01 * bend)})
    assert law.misfit is not None
    assert law.misfit.variable == variable
    assert law.misfit.p_value < 0.01
    assert law.misfit.share > 0.3


def test_a_step_in_sparsity_that_the_form_has_not_is_called_a_misfit_in_it():
    rows, _ = table("chinchilla_sparsity", noise=0.002, sparsities=(0.0, 0.5, 0.75, 0.875, 0.9375))
    rows["loss"] = rows["loss"] * np.where(rows["sparsity"] == 0.75, 1.02, 1.0)
    law = fit(rows, "chinchilla_sparsity", bootstrap=2)
    assert law.misfit is not None
    assert law.misfit.variable == "sparsity"


def test_runs_of_the_form_are_hardly_ever_called_a_misfit_nor_outliers():
    laws = [fitted(grid(seed=seed)) for seed in range(25)]
    assert sum(law.misfit is not None for law in laws) <= 2
    assert sum(len(law.outliers) > 0 for law in laws) <= 2


def test_what_the_runs_of_one_group_share_is_no_misfit():
    rows = grid()
    group = np.unique(rows["total_parameters"], return_inverse=True)[1]
    shared = np.random.default_rng(1).normal(0, 0.01, 6)[group]
    rows["loss"] = rows["loss"] * np.exp(shared)
    assert fitted({**rows, "group": group.astype(float)}).misfit is None
