"""`fit`: fit a scaling law to a table of runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from sparsedial.errors import UserError, nearest
from sparsedial.law.answer import answer
from sparsedial.law.choose import compare
from sparsedial.law.counting import COUNTINGS, counted_as
from sparsedial.law.fit import Rows, refusal
from sparsedial.law.fit import fit as fit_law
from sparsedial.law.forms import FORMS
from sparsedial.law.holding import checked, held_rows
from sparsedial.law.sanity import require_possible, require_units
from sparsedial.law.table import read_table
from sparsedial.records.law import Fit, Forms, FormWords
from sparsedial.records.record import write
from sparsedial.settings import setting
from sparsedial.units import parse_count

MOST_BOOTSTRAP = 10_000


def _pairs(text: Any, field: str) -> dict[str, str]:
    """`a=b,c=d`, or a table from a settings file."""
    if isinstance(text, Mapping):
        return {str(key): str(value) for key, value in text.items()}
    pairs: dict[str, str] = {}
    for item in str(text).split(","):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not (equals and name and value):
            raise UserError(f"cannot read '{item}'", hint="write it like loss=final_loss,tokens=D", field=field)
        if name in pairs:
            raise UserError(f"'{name}' is given twice, as {pairs[name]} and as {value}", field=field)
        pairs[name] = value
    return pairs


def _pins(text: Any, field: str) -> dict[str, float]:
    return {name: parse_count(value, field) for name, value in _pairs(text, field).items()}


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
        help="the table's column names for loss, tokens, …", metavar="OURS=THEIRS,…", parse=_pairs, factory=dict
    )
    where: str | None = setting(None, "rows to keep, like step==250000", "EXPR")
    hold_out: str | None = setting(None, "rows to hold out, like flops>1e12, or sparsest [the largest budget]", "EXPR")
    group: str | None = setting(
        None, "column that groups runs which are not independent [trunk, if there is one]", "COLUMN"
    )
    pin: dict[str, float] = setting(help="coefficients to keep fixed", metavar="NAME=VALUE", parse=_pins, factory=dict)
    huber: float | None = setting(None, "log-loss residual above which a run counts less [from the spread]", "DELTA")
    bootstrap: int = setting(200, "number of refits to resampled residuals, for the intervals", "N")
    seed: int = setting(0, "seed of the resampling", "N")
    counting: str | None = setting(
        None, "how sizes were counted: with-embeddings, without-embeddings or both-embeddings [from the names]", "HOW"
    )
    out: Path | None = setting(None, "also write the law to this file", "FILE")
    list_forms: bool = setting(False, "list the forms and exit")

    def __post_init__(self) -> None:
        for name, least, most in (("bootstrap", 0, MOST_BOOTSTRAP), ("seed", 0, 2**63 - 1)):
            if not least <= getattr(self, name) <= most:
                raise UserError(f"{getattr(self, name)} lies outside {least}..{most}", field=name)
        if self.counting is not None and self.counting not in COUNTINGS:
            raise UserError(
                f"no counting '{self.counting}'", hint=f"known are {', '.join(COUNTINGS)}", field="counting"
            )
        if self.huber is not None and self.huber <= 0:
            raise UserError(f"{self.huber:g} is not above 0", hint="several papers use 1e-3", field="huber")


def fit(settings: FitSettings) -> Fit | Forms:
    """Fit a form to runs, with intervals, a held-out check, and the coefficients that the data do not determine.

    A table that cannot support the form is refused with the reason. A refusal is a result, not an error.

    Raises: UserError for an unreadable table, or missing columns that the form needs.
    """
    if settings.list_forms:
        return Forms(forms={name: FormWords(says=form.says, source=form.source) for name, form in FORMS.items()})
    rows = _rows(settings)
    held = held_rows(rows, settings.hold_out)
    form, compared = settings.form[0], None
    if len(settings.form) > 1:
        if settings.pin:
            raise UserError("needs a single form", hint=f"<form> {settings.form[0]}", field="pin")
        form, compared = compare(rows, settings.form, settings.seed, None if settings.hold_out is None else held)
    wanted = settings.bootstrap > 0
    reason = "none of the forms can be fitted" if form is None else refusal(rows, form, intervals=wanted)
    if form is None or reason is not None:
        return answer(None, rows, reason, compared)
    law = fit_law(
        rows,
        form,
        pin=settings.pin,
        bootstrap=settings.bootstrap,
        seed=settings.seed,
        huber=settings.huber,
    )
    check, unchecked = checked(rows, held, form, rule=settings.hold_out, pin=settings.pin, seed=settings.seed)
    counting = counted_as(settings.counting, settings.columns) or FORMS[form].counting
    law = replace(law, held_out=check, held_out_reason=unchecked, compared=compared, counting=counting)
    if settings.out is not None:
        write(settings.out, law)
    return answer(law, rows, None, compared)


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
