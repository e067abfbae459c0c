"""`fit`: a scaling law from a table of runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sparsedial.errors import UserError, nearest
from sparsedial.law.choose import compare, held_out_check, select
from sparsedial.law.fit import Rows, independent, refusal
from sparsedial.law.fit import fit as fit_law
from sparsedial.law.forms import FORMS
from sparsedial.law.law import Law
from sparsedial.law.table import matching, read_table
from sparsedial.store import write_json
from sparsedial.units import parse_count

LEAST_COUNT = 1000.0  # no model has fewer parameters, no run fewer tokens
MOST_BOOTSTRAP = 10_000
LEAST_LOSS, MOST_LOSS = 1e-6, 1e6
OTHER_UNITS = 1e4  # between counted FLOPs and 6 N D: more than any sparsity or attention explains


def _pairs(text: Any) -> dict[str, str]:
    """`a=b,c=d`, or a table from a settings file."""
    if isinstance(text, Mapping):
        return {str(key): str(value) for key, value in text.items()}
    pairs = {}
    for item in str(text).split(","):
        name, equals, value = item.partition("=")
        if not (equals and name.strip() and value.strip()):
            raise UserError(f"fit: cannot read '{item}'", hint="write it like loss=final_loss,tokens=D")
        if name.strip() in pairs:
            raise UserError(f"fit: '{name.strip()}' is given twice, as {pairs[name.strip()]} and as {value.strip()}")
        pairs[name.strip()] = value.strip()
    return pairs


def _pins(text: Any) -> dict[str, float]:
    return {name: parse_count(value, "--pin") for name, value in _pairs(text).items()}


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Which table, which form, and what is held out."""

    table: Path | None = field(
        default=None,
        metadata={
            "positional": True,
            "nargs": "?",
            "help": "the folder of a study or of runs, .csv, .jsonl or .parquet",
        },
    )
    form: tuple[str, ...] = field(
        default=("chinchilla_sparsity",),
        metadata={
            "metavar": "FORM,…",
            "help": "names of --list-forms, simplest first: the one that predicts held-out runs best is taken",
        },
    )
    columns: dict[str, str] = field(
        default_factory=dict,
        metadata={"parse": _pairs, "metavar": "OURS=THEIRS,…", "help": "the table's own names of loss, tokens, …"},
    )
    where: str | None = field(default=None, metadata={"metavar": "EXPR", "help": "rows to keep, like step==250000"})
    hold_out: str | None = field(
        default=None,
        metadata={"metavar": "EXPR", "help": "rows to predict, like flops>1e12, or sparsest [the largest budget]"},
    )
    group: str | None = field(
        default=None,
        metadata={
            "metavar": "COLUMN",
            "help": "runs that share a value are not independent [trunk, where there is one]",
        },
    )
    pin: dict[str, float] = field(
        default_factory=dict,
        metadata={"parse": _pins, "metavar": "NAME=VALUE", "help": "coefficients that are not fitted"},
    )
    huber: float | None = field(
        default=None,
        metadata={"metavar": "DELTA", "help": "log loss from which a residual counts less [by the spread]"},
    )
    bootstrap: int = field(
        default=200, metadata={"metavar": "N", "help": "refits to resampled residuals, for the intervals"}
    )
    seed: int = field(default=0, metadata={"metavar": "N", "help": "of the resampling"})
    out: Path | None = field(default=None, metadata={"metavar": "FILE", "help": "write the law there too"})
    list_forms: bool = field(default=False, metadata={"help": "name the forms, and stop"})

    def __post_init__(self) -> None:
        for name, least, most in (("bootstrap", 0, MOST_BOOTSTRAP), ("seed", 0, 2**63 - 1)):
            if not least <= getattr(self, name) <= most:
                raise UserError(f"fit: --{name} {getattr(self, name)} lies outside {least}..{most}")
        if self.huber is not None and self.huber <= 0:
            raise UserError(f"fit: --huber {self.huber:g} is not above 0", hint="1e-3 is what several papers take")


def fit(settings: FitSettings) -> dict[str, Any]:
    """Fit a form to runs, with intervals, a held-out check, and the coefficients that the data leave open.

    A table that cannot support the form is refused with the reason, which is a result.

    Raises: UserError for an unreadable table, or columns that the form needs and the table lacks.
    """
    if settings.list_forms:
        return {"forms": {name: {"says": form.says, "source": form.source} for name, form in FORMS.items()}}
    if settings.table is None:
        raise UserError("fit: no table", hint="name the folder of a study or of runs, a .csv, .jsonl or .parquet")
    for form in settings.form:
        if form not in FORMS:
            raise UserError(
                f"fit: no form named '{form}'", hint=nearest(form, FORMS) or "`sparsedial fit --list-forms`"
            )
    rows = _rows(settings)
    held = _held(rows, settings)
    form, compared = settings.form[0], None
    if len(settings.form) > 1:
        if settings.pin:
            raise UserError("fit: --pin goes with one form", hint=f"--form {settings.form[0]}")
        form, compared = compare(rows, settings.form, settings.seed, None if settings.hold_out is None else held)
    wanted = settings.bootstrap > 0
    reason = "none of the forms can be fitted" if form is None else refusal(rows, form, intervals=wanted)
    if form is None or reason is not None:
        return _record(None, rows, None, reason, compared)
    law = fit_law(
        rows,
        form,
        pin=settings.pin,
        bootstrap=settings.bootstrap,
        seed=settings.seed,
        huber=settings.huber,
    )
    record = _record(law, rows, _held_out(rows, held, form, settings), None, compared)
    if settings.out is not None:
        write_json(settings.out, {**law.record(), "held_out": record["held_out"], "compared": compared})
    return record


def _rows(settings: FitSettings) -> Rows:
    table = read_table(settings.table or Path(), settings.columns, settings.where, settings.group)
    wanted = [FORMS[form].variables for form in settings.form]
    shared = wanted[0] if len(wanted) == 1 else [name for name in wanted[0] if all(name in names for names in wanted)]
    for name in ("loss", *shared):
        if name not in table:
            raise UserError(
                f"{settings.table}: {', '.join(settings.form)} needs a column '{name}' of numbers in every row",
                hint=f"--columns {name}=NAME, if it has another name; --where '{name} > 0', if some rows lack it",
            )
    for name in ("loss", *dict.fromkeys((*shared, "flops"))):
        if name not in table:
            continue
        share = name in ("sparsity", "shared_share")  # which may be 0
        possible = (table[name] >= 0) & (table[name] < 1) if share else table[name] > 0
        if not possible.all():
            place = int(np.argmin(possible))
            bounds = f"{name} >= 0 and {name} < 1" if share else f"{name} > 0"
            raise UserError(
                f"{settings.table}: row {place + 1} has {name}={table[name][place]:g}",
                hint=f"--where '{bounds}' leaves such rows out",
            )
    _units(settings, table)
    return table


def _held(rows: Rows, settings: FitSettings) -> np.ndarray | None:
    """Which rows are predicted, not fitted; None where there are no two budgets to tell by."""
    if settings.hold_out is not None:
        top = _sparsest(rows) if settings.hold_out == "sparsest" else matching(rows, settings.hold_out)
        if not top.any() or top.all():
            raise UserError(
                f"fit: --hold-out '{settings.hold_out}' picks {int(top.sum())} of {len(top)} rows",
                hint="some must be picked, and some left to fit",
            )
        return top
    if "flops" in rows and len(np.unique(rows["flops"])) > 1:
        return rows["flops"] == rows["flops"].max()
    return None


def _held_out(rows: Rows, held: np.ndarray | None, form: str, settings: FitSettings) -> dict[str, Any] | None:
    """How the form, fitted to the other rows, predicts those held out; None where the rest cannot support it.

    Raises: UserError where the rule that was asked for leaves too little.
    """
    if held is None:
        return None
    below = select(rows, ~held)
    reason = refusal(below, form)
    if reason is not None and settings.hold_out is not None:
        raise UserError(f"fit: beside --hold-out '{settings.hold_out}' {reason}", hint="hold out fewer rows")
    if reason is not None:
        return None
    law = fit_law(below, form, pin=settings.pin, bootstrap=0, seed=settings.seed)
    return held_out_check(below, select(rows, held), law)


def _sparsest(rows: Rows) -> np.ndarray:
    for name in ("sparsity", "experts"):
        if name in rows:
            return rows[name] == rows[name].max()
    raise UserError("fit: --hold-out sparsest needs a column 'sparsity' or 'experts'")


def _units(settings: FitSettings, rows: Rows) -> None:
    """Refuse what is obviously in other units than ours.

    Raises: UserError that says which column, and how to convert it.
    """
    for name in ("total_parameters", "active_parameters", "tokens"):
        if name in rows and rows[name].max() < LEAST_COUNT:
            raise UserError(
                f"{settings.table}: {name} is at most {rows[name].max():g}, which looks like millions or billions",
                hint=f"--columns '{name}={settings.columns.get(name, name)}*1e9' converts it",
            )
    source = settings.columns.get("loss", "loss").lower()
    if source.isidentifier() and any(word in source for word in ("bit", "bpb", "bpc")):
        raise UserError(
            f"{settings.table}: '{source}' looks like bits, and a law's loss is in nats per token",
            hint=f"--columns 'loss={source}*0.6931' converts bits per token",
        )
    size = "active_parameters" if "active_parameters" in rows else "total_parameters"
    if {"flops", "tokens", size} <= set(rows):
        ratio = float(np.median(rows["flops"] / (6 * rows[size] * rows["tokens"])))
        if not 1 / OTHER_UNITS <= ratio <= OTHER_UNITS:
            raise UserError(
                f"{settings.table}: flops are {ratio:.2g} times 6 x {size} x tokens, so one of them is in other units",
                hint=f"--columns '{size}={settings.columns.get(size, size)}*1e6' converts millions",
            )
    if not LEAST_LOSS <= rows["loss"].max() <= MOST_LOSS:
        raise UserError(
            f"{settings.table}: loss is at most {rows['loss'].max():g}, which is no loss in nats per token",
            hint="--columns loss=NAME, if another column holds it",
        )
    if rows["loss"].min() == rows["loss"].max():
        raise UserError(f"{settings.table}: loss is {rows['loss'][0]:g} in every row")


def _record(
    law: Law | None,
    rows: Rows,
    held_out: dict[str, Any] | None,
    refused: str | None,
    compared: dict[str, Any] | None,
) -> dict[str, Any]:
    sampled = law is None or len(law.samples) > 1  # a single one spans nothing
    return {
        "form": law.form if law else None,
        "coefficients": law.coefficients if law else {},
        "intervals": {} if law is None else law.intervals if sampled else dict.fromkeys(law.coefficients),
        "intervals_reason": None if sampled else "too few samples (--bootstrap) to say how sure the coefficients are",
        "confidence": law.confidence if law else None,
        "runs": len(rows["loss"]),
        "independent_runs": independent(rows),
        "rmse_log_loss": law.rmse_log_loss if law else None,
        "held_out": held_out,
        "undetermined": (list(law.undetermined) if law else []) if sampled else None,
        "refused": refused,
        "compared": compared,
    }
