"""The law of a study: chosen and fitted below the largest budget, checked on that budget, fitted again to all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from msgspec.structs import replace

from sparsedial.law.check import held_out_check
from sparsedial.law.choose import STUDY_PRIORS, choose, select
from sparsedial.law.fit import fit, refusal
from sparsedial.law.forms import STUDY_FORMS
from sparsedial.law.law import Law
from sparsedial.records.grid import Cell, CellPrediction, Prediction
from sparsedial.records.law import Comparison, Prior
from sparsedial.records.study import LawSummary
from sparsedial.sweep.cells import Cells, law_rows
from sparsedial.sweep.layout import Layout


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The law of the budgets below the largest, and how its form was chosen."""

    form: str | None  # None where no form could be compared
    comparison: Comparison
    law: Law | None  # None where these budgets allow no fit

    def prediction(self, layout: Layout) -> Prediction | None:
        """Its prediction of the largest budget, to be written down before a cell of that budget is trained."""
        law = self.law
        return law and Prediction(
            form=law.form,
            coefficients=law.coefficients,
            comparison=self.comparison,
            cells=tuple(predicted_cell(layout, law, cell) for cell in layout.top_cells),
        )


@dataclass(frozen=True, kw_only=True)
class StudyLaw:
    """The law of all budgets, or the reason why there is none, and the forecast that checks it."""

    law: Law | None
    refused: str | None
    forecast: Forecast

    def summary(self) -> LawSummary:
        """The law as stored in `study.json`."""
        law = self.law
        return LawSummary(
            form=law.form if law else None,
            coefficients=law.coefficients if law else {},
            intervals=law.intervals if law else {},
            confidence=law.confidence if law else None,
            undetermined=law.undetermined if law else (),
            rmse_log_loss=law.rmse_log_loss if law else None,
            held_out=law.held_out if law else None,
            held_out_reason=law.held_out_reason if law else "there is no law to check",
            refused=self.refused,
            comparison=self.forecast.comparison,
        )


class Laws(Protocol):
    """A source of a study's laws."""

    def forecast(self, layout: Layout, below: Cells, wanted: str | None) -> Forecast:
        """The law of the cells below the largest budget, in the wanted form, or in the best one."""
        ...

    def of_all(self, layout: Layout, cells: Cells, before: Forecast) -> StudyLaw:
        """The law of all cells, in the form of the forecast."""
        ...


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The laws that a fit to the cells gives, and to what priors expect."""

    priors: Mapping[str, Prior] = field(default_factory=lambda: STUDY_PRIORS)

    def forecast(self, layout: Layout, below: Cells, wanted: str | None) -> Forecast:
        """Choose a form on the cells below the largest budget, and fit it to them if they allow a fit."""
        rows = law_rows(layout, below)
        form, comparison = choose(rows, wanted, priors=self.priors)
        law = fit(rows, form, priors=self.priors) if form and refusal(rows, form) is None else None
        return Forecast(form=form, comparison=comparison, law=law)

    def of_all(self, layout: Layout, cells: Cells, before: Forecast) -> StudyLaw:
        """The law of all cells in the form chosen on the lower budgets; if none could be chosen, in the simplest."""
        rows, form = law_rows(layout, cells), before.form or STUDY_FORMS[0]
        refused = refusal(rows, form, intervals=True)
        if refused is not None:
            return StudyLaw(law=None, refused=refused, forecast=before)
        law, top = fit(rows, form, priors=self.priors), rows["flops"] == layout.budgets[-1]
        if before.law is None:
            law = replace(law, held_out_reason="the budgets below the largest allow no fit")
        elif not top.any():
            law = replace(law, held_out_reason="no run of the largest budget was trained to its end")
        else:
            law = replace(law, held_out=held_out_check(select(rows, ~top), select(rows, top), before.law))
        return StudyLaw(law=replace(law, compared=before.comparison), refused=None, forecast=before)


def predicted_cell(layout: Layout, law: Law, cell: Cell) -> CellPrediction:
    """A law's prediction of a cell, with an interval for a single run."""
    variables = law.variables(layout.shape(cell), layout.tokens(cell))
    low, high = law.run_interval(**variables)
    return CellPrediction(
        d_model=cell.d_model,
        experts=cell.experts,
        loss=law.loss(**variables),
        low=float(low[0]),
        high=float(high[0]),
    )
