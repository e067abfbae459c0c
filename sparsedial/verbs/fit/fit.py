"""`fit`: fit a scaling law to a table of runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from msgspec.structs import replace

from sparsedial.errors import UserError, nearest, with_flags
from sparsedial.law.answer import answer
from sparsedial.law.choose import STUDY_PRIORS, compare
from sparsedial.law.counting import counted_as
from sparsedial.law.fit import Estimator, refusal
from sparsedial.law.fit import fit as fit_law
from sparsedial.law.forms import FORMS
from sparsedial.law.holding import checked, held_rows
from sparsedial.law.predicting import predict, require_predictable
from sparsedial.law.reading import is_ours
from sparsedial.law.runs import Reading, Runs, read_runs
from sparsedial.records.law import Fit, Forms, FormWords, Prior
from sparsedial.records.optimum import Predicted
from sparsedial.records.record import write
from sparsedial.showing.notes import note_not_written
from sparsedial.verbs.fit.settings import FitSettings
from sparsedial.verbs.plan.space import find_law


def fit(settings: FitSettings) -> Fit | Forms | Predicted:
    """Fit a form to runs: its coefficients, the best size and tokens for a budget, and a held-out check.

    A table that cannot support the form is refused with the reason. A refusal is a result, not an error. With a law
    that was fitted before, a table is predicted instead.

    Raises: UserError for an unreadable table, or missing columns that the form needs.
    """
    if settings.list_forms:
        return Forms(forms={name: FormWords(says=form.says, source=form.source) for name, form in FORMS.items()})
    if settings.law is not None:
        return _by_law(settings, settings.law)
    out = None if settings.predict is None else require_predictable(settings.predict, settings.out)
    runs = _runs(settings)
    rows = runs.table.rows
    held, priors = held_rows(rows, settings.hold_out, runs.table.names), _priors(settings)
    form, compared = settings.form[0], None
    if len(settings.form) > 1:
        if settings.pin:
            raise UserError("needs a single form", hint=f"<form> {settings.form[0]}", field="pin")
        stated = None if settings.hold_out is None else held
        form, compared = compare(rows, settings.form, settings.seed, stated, huber=settings.huber, priors=priors)
    wanted = settings.bootstrap > 0
    reason = "none of the forms can be fitted" if form is None else refusal(rows, form, wanted, settings.pin)
    if form is None or reason is not None:
        if settings.out is not None:
            note_not_written(settings.out, f"the fit is refused: {reason}")
        return answer(None, rows, reason, compared, runs)
    how = Estimator(pin=settings.pin, huber=settings.huber, priors=priors)
    law = fit_law(rows, form, bootstrap=settings.bootstrap, seed=settings.seed, **how)
    check, unchecked = checked(rows, held, form, rule=settings.hold_out, seed=settings.seed, **how)
    counting = counted_as(settings.counting, settings.columns) or FORMS[form].counting
    law = replace(law, held_out=check, held_out_reason=unchecked, compared=compared, counting=counting)
    found = answer(law, rows, None, compared, runs, settings.at)
    if settings.predict is not None and out is not None:
        return replace(found, predicted=predict(law, settings.predict, out, settings.columns))
    if settings.out is None:
        return found
    write(settings.out, law)
    return replace(found, out=str(settings.out))


def _by_law(settings: FitSettings, name: str) -> Predicted:
    """Predictions by a law that was fitted before.

    Raises: UserError where there is no table to predict, or one to fit beside it.
    """
    if settings.table is not None or settings.predict is None:
        raise UserError("a law predicts a table, and fits none", hint="<law> law.json <predict> runs.csv", field="law")
    out = require_predictable(settings.predict, settings.out)
    return predict(find_law(name).law, settings.predict, out, settings.columns, settings.where)


def _priors(settings: FitSettings) -> Mapping[str, Prior]:
    """The priors that are stated, or those of a study where the runs are ours.

    Raises: UserError for a name that is no exponent of the forms.
    """
    if settings.prior is None:
        return STUDY_PRIORS if settings.table is not None and is_ours(settings.table) else {}
    known = {name for form in settings.form for name in FORMS[form].exponents}
    for name in settings.prior.keys() - known:
        raise UserError(
            f"no exponent named '{name}'", hint=nearest(name, known) or ", ".join(sorted(known)), field="prior"
        )
    return settings.prior


def _runs(settings: FitSettings) -> Runs:
    """The runs of the table, with the columns that the forms need.

    Raises: UserError where no table is given, a column is missing, or a value is one that no run can have.
    """
    if settings.table is None:
        raise UserError(
            "no table is given", hint="name the folder of a study or of runs, or a .csv, .jsonl or .parquet file"
        )
    for form in settings.form:
        if form not in FORMS:
            raise UserError(f"no form named '{form}'", hint=nearest(form, FORMS) or "`sparsedial fit --list-forms`")
    reading = Reading(
        path=settings.table,
        columns=settings.columns,
        where=settings.where,
        group=settings.group,
        weight=settings.weight,
        best_of=settings.best_of,
    )
    runs = read_runs(reading, settings.form)
    return dataclasses.replace(runs, notes=tuple(map(with_flags, runs.notes)))
