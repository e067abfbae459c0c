"""The law of a study: fitted to its cells, and checked on those that it was not fitted to."""

from __future__ import annotations

import numpy as np
import pytest

from sparsedial.law.check import held_out_check
from sparsedial.law.choose import select
from sparsedial.law.fit import fit
from sparsedial.records.law import Comparison
from sparsedial.sweep.cells import law_rows
from sparsedial.sweep.laws import Fitted, Forecast
from tests.sweep.simulation import LAW, TRUE_FORM, whole


def forecast_of(layout, cells) -> Forecast:
    """In the one form that is true: comparing them all takes half a minute."""
    below = {cell: result for cell, result in cells.items() if cell.budget_flops < layout.budgets[-1]}
    law = fit(law_rows(layout, below), TRUE_FORM)
    return Forecast(form=TRUE_FORM, comparison=Comparison(rule="none", forms={}), law=law)


def test_the_law_is_fitted_to_all_cells_and_checked_by_the_forecast():
    made, findings = whole()
    layout, cells = made.lab.layout, findings.cells
    before = forecast_of(layout, cells)
    law = Fitted().of_all(layout, cells, before).law
    rows = law_rows(layout, cells)
    top = rows["flops"] == layout.budgets[-1]
    assert law.runs == len(rows["loss"])
    assert law.held_out == held_out_check(select(rows, ~top), select(rows, top), before.law)
    assert law.held_out.runs == top.sum()
    assert law.coefficients["alpha"] == pytest.approx(LAW.coefficients["alpha"], abs=0.1)


def test_cells_that_allow_no_law_say_why():
    made, findings = whole()
    few = dict(list(findings.cells.items())[:4])
    before = Fitted().forecast(made.lab.layout, few, None)
    found = Fitted().of_all(made.lab.layout, few, before)
    assert (before.law, found.law) == (None, None)
    assert "too few" in found.refused
    assert found.summary().held_out_reason == "there is no law to check"


def test_the_columns_of_the_fit_are_those_of_the_cells():
    made, findings = whole()
    rows = law_rows(made.lab.layout, findings.cells)
    assert np.array_equal(rows["tokens"], [result.run.tokens for result in findings.cells.values()])
    assert np.array_equal(rows["loss"], [result.loss for result in findings.cells.values()])
