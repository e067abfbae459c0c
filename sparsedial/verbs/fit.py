"""`fit`: fit a scaling law to a table of runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from sparsedial.errors import UserError, nearest
from sparsedial.law.answer import answer
from sparsedial.law.choose import compare
from sparsedial.law.fit import Rows, refusal
from sparsedial.law.fit import fit as fit_law
from sparsedial.law.forms import FORMS
from sparsedial.law.holding import checked, held_rows
from sparsedial.law.predicting import predict, require_predictable
from sparsedial.law.sanity import require_possible, require_units
from sparsedial.law.table import read_table
from sparsedial.records.law import Fit, Forms, FormWords
from sparsedial.records.optimum import Predicted
from sparsedial.records.record import write
from sparsedial.settings import setting
from sparsedial.units import parse_counts
from sparsedial.verbs.pairs import parse_pairs, parse_pins
from sparsedial.verbs.space import find_law

MOST_BOOTSTRAP = 10_000


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """The table, the form, and the runs to hold out."""

    table: Path | None = setting(
        None, "folder of a study or of runs, or a .csv, .jsonl or .parquet file", positional=True, nargs="?"
    )
    form: tuple[str, ...] = setting(
        ("chinchilla_sparsity",),
        "names from --list-forms, simplest first; of several, the one that predicts held-out runs best is used",
        "FORM,…",
    )
    columns: dict[str, str] = setting(
        help="the table's column names for loss, tokens, …", metavar="OURS=THEIRS,…", parse=parse_pairs, factory=dict
    )
    where: str | None = setting(None, "rows to keep, like step==250000", "EXPR")
    hold_out: str | None = setting(None, "rows to hold out, like flops>1e12, or sparsest [the largest budget]", "EXPR")
    group: str | None = setting(
        None, "column that groups runs which are not independent [trunk, if there is one]", "COLUMN"
    )
    pin: dict[str, float] = setting(
        help="coefficients to keep fixed", metavar="NAME=VALUE", parse=parse_pins, factory=dict
    )
    huber: float | None = setting(None, "log-loss residual above which a run counts less [from the spread]", "DELTA")
    bootstrap: int = setting(200, "number of refits to resampled residuals, for the intervals", "N")
    seed: int = setting(0, "seed of the resampling", "N")
    at: tuple[float, ...] = setting(
        (), "budgets to split best [the largest, and ten times it]", "FLOPS,…", parse=parse_counts
    )
    predict: Path | None = setting(None, "also predict the rows of this table, into the file of --out", "TABLE")
    law: str | None = setting(
        None, "predict by this law: a law.json, a study's folder or a name; fit none", "NAME|FILE"
    )
    out: Path | None = setting(None, "also write the law to this file; with --predict, the predictions", "FILE")
    list_forms: bool = setting(False, "list the forms and exit")

    def __post_init__(self) -> None:
        for name, least, most in (("bootstrap", 0, MOST_BOOTSTRAP), ("seed", 0, 2**63 - 1)):
            if not least <= getattr(self, name) <= most:
                raise UserError(f"{getattr(self, name)} lies outside {least}..{most}", field=name)
        if self.huber is not None and self.huber <= 0:
            raise UserError(f"{self.huber:g} is not above 0", hint="several papers use 1e-3", field="huber")


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
    rows = _rows(settings)
    held = held_rows(rows, settings.hold_out)
    form, compared = settings.form[0], None
    if len(settings.form) > 1:
        if settings.pin:
            raise UserError("needs a single form", hint=f"<form> {settings.form[0]}", field="pin")
        form, compared = compare(
            rows, settings.form, settings.seed, None if settings.hold_out is None else held, settings.huber
        )
    wanted = settings.bootstrap > 0
    reason = "none of the forms can be fitted" if form is None else refusal(rows, form, intervals=wanted)
    if form is None or reason is not None:
        return answer(None, rows, reason, compared)
    pin, seed, huber = settings.pin, settings.seed, settings.huber
    law = fit_law(rows, form, pin=pin, bootstrap=settings.bootstrap, seed=seed, huber=huber)
    check, unchecked = checked(rows, held, form, rule=settings.hold_out, pin=pin, seed=seed, huber=huber)
    law = replace(law, held_out=check, held_out_reason=unchecked, compared=compared)
    found = answer(law, rows, None, compared, settings.at)
    if settings.predict is not None and out is not None:
        return replace(found, predicted=predict(law, settings.predict, out, settings.columns))
    if settings.out is not None:
        write(settings.out, law)
    return found


def _by_law(settings: FitSettings, name: str) -> Predicted:
    """Predictions by a law that was fitted before.

    Raises: UserError where there is no table to predict, or one to fit beside it.
    """
    if settings.table is not None or settings.predict is None:
        raise UserError("a law predicts a table, and fits none", hint="<law> law.json <predict> runs.csv", field="law")
    out = require_predictable(settings.predict, settings.out)
    return predict(find_law(name).law, settings.predict, out, settings.columns, settings.where)


def _rows(settings: FitSettings) -> Rows:
    """The table with the columns that the forms need.

    Raises: UserError where no table is given, a column is missing, or a value is one that no run can have.
    """
    if settings.table is None:
        raise UserError(
            "no table is given", hint="name the folder of a study or of runs, or a .csv, .jsonl or .parquet file"
        )
    for form in settings.form:
        if form not in FORMS:
            raise UserError(f"no form named '{form}'", hint=nearest(form, FORMS) or "`sparsedial fit --list-forms`")
    table = read_table(settings.table, settings.columns, settings.where, settings.group)
    first, *others = (FORMS[form].variables for form in settings.form)
    shared = [name for name in first if all(name in names for names in others)]
    for name in ("loss", *shared):
        if name not in table:
            raise UserError(
                f"{settings.table}: {', '.join(settings.form)} needs a column '{name}' of numbers in every row",
                hint=f"<columns> {name}=NAME if it has another name; <where> '{name} > 0' if some rows lack it",
            )
    require_possible(table, shared, settings.table)
    require_units(table, settings.columns, settings.table)
    return table
