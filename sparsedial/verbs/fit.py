"""`fit`: fit a scaling law to a table of runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from sparsedial.errors import UserError, nearest, with_flags
from sparsedial.law.answer import answer
from sparsedial.law.choose import compare
from sparsedial.law.expressions import assignments
from sparsedial.law.fit import fit as fit_law
from sparsedial.law.fit import refusal
from sparsedial.law.forms import FORMS
from sparsedial.law.holding import checked, held_rows
from sparsedial.law.runs import Reading, Runs, read_runs
from sparsedial.records.law import Fit, Forms, FormWords
from sparsedial.records.record import write
from sparsedial.settings import setting
from sparsedial.units import parse_count

MOST_BOOTSTRAP = 10_000


def _pins(text: Any, field: str) -> dict[str, float]:
    return {name: parse_count(value, field) for name, value in assignments(text, field).items()}


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """The table, the form, and the runs to hold out."""

    table: Path | None = setting(
        None,
        "folder of a study or of runs, or a .csv, .tsv, .jsonl, .json or .parquet file",
        positional=True,
        nargs="?",
    )
    form: tuple[str, ...] = setting(
        ("chinchilla_sparsity",),
        "names from --list-forms, simplest first; of several, the one that predicts held-out runs best is used",
        "FORM,…",
    )
    columns: dict[str, str] = setting(
        help="where the table has loss, tokens, …: its columns, or arithmetic like loss=log(ppl),tokens=D*1e9;"
        " a name with a comma stands in backticks",
        metavar="OURS=THEIRS,…",
        parse=assignments,
        factory=dict,
    )
    where: str | None = setting(None, "rows to keep, like step==250000; by the table's names or ours", "EXPR")
    best_of: tuple[str, ...] = setting(
        (),
        "columns of settings, like lr: of the runs of one size and tokens, only those with the best stay",
        "COLUMN,…",
    )
    weight: str | None = setting(None, "column or arithmetic that says how often each row counts", "COLUMN")
    hold_out: str | None = setting(
        None,
        "rows to hold out, like flops>1e12, by the table's names or ours; or sparsest [the largest budget]",
        "EXPR",
    )
    group: str | None = setting(
        None,
        "columns that tell which rows are one run, or not independent; row takes each for itself [trunk, if there is"
        " one, or what tells checkpoints of a run]",
        "COLUMN,…",
    )
    pin: dict[str, float] = setting(help="coefficients to keep fixed", metavar="NAME=VALUE", parse=_pins, factory=dict)
    huber: float | None = setting(None, "log-loss residual above which a run counts less [from the spread]", "DELTA")
    bootstrap: int = setting(200, "number of refits to resampled residuals, for the intervals", "N")
    seed: int = setting(0, "seed of the resampling", "N")
    out: Path | None = setting(None, "also write the law to this file", "FILE")
    list_forms: bool = setting(False, "list the forms and exit")

    def __post_init__(self) -> None:
        for name, least, most in (("bootstrap", 0, MOST_BOOTSTRAP), ("seed", 0, 2**63 - 1)):
            if not least <= getattr(self, name) <= most:
                raise UserError(f"{getattr(self, name)} lies outside {least}..{most}", field=name)
        if self.huber is not None and self.huber <= 0:
            raise UserError(f"{self.huber:g} is not above 0", hint="several papers use 1e-3", field="huber")


def fit(settings: FitSettings) -> Fit | Forms:
    """Fit a form to runs, with intervals, a held-out check, and the coefficients that the data do not determine.

    A table that cannot support the form is refused with the reason. A refusal is a result, not an error.

    Raises: UserError for an unreadable table, or missing columns that the form needs.
    """
    if settings.list_forms:
        return Forms(forms={name: FormWords(says=form.says, source=form.source) for name, form in FORMS.items()})
    runs = _runs(settings)
    rows = runs.table.rows
    held = held_rows(rows, settings.hold_out, runs.table.names)
    form, compared = settings.form[0], None
    if len(settings.form) > 1:
        if settings.pin:
            raise UserError("needs a single form", hint=f"<form> {settings.form[0]}", field="pin")
        form, compared = compare(rows, settings.form, settings.seed, None if settings.hold_out is None else held)
    wanted = settings.bootstrap > 0
    reason = "none of the forms can be fitted" if form is None else refusal(rows, form, intervals=wanted)
    if form is None or reason is not None:
        return answer(None, rows, reason, compared, runs)
    law = fit_law(
        rows,
        form,
        pin=settings.pin,
        bootstrap=settings.bootstrap,
        seed=settings.seed,
        huber=settings.huber,
    )
    check, unchecked = checked(rows, held, form, rule=settings.hold_out, pin=settings.pin, seed=settings.seed)
    law = replace(law, held_out=check, held_out_reason=unchecked, compared=compared)
    if settings.out is not None:
        write(settings.out, law)
    return answer(law, rows, None, compared, runs)


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
