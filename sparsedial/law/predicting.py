"""Predictions of a law for the rows of a table, written beside the table's own columns."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparsedial.errors import UserError, with_flags
from sparsedial.law.beyond import times_beyond
from sparsedial.law.choose import relative_errors
from sparsedial.law.entries import as_numbers
from sparsedial.law.expressions import quoted, value
from sparsedial.law.fit import Rows
from sparsedial.law.law import Law
from sparsedial.law.loss_units import low_loss_note, require_nats
from sparsedial.law.reading import Columns, is_ours, read_columns
from sparsedial.law.sanity import require_possible
from sparsedial.law.table import ROW, Table, open_table
from sparsedial.law.units import require_units
from sparsedial.records.optimum import Predicted
from sparsedial.store import check_writable, write_atomically

if TYPE_CHECKING:
    import polars

ENDINGS = (".csv", ".jsonl", ".ndjson", ".parquet")
MOST_WHOLE = 2.0**53  # beyond, floats skip whole numbers
NO_INTERVALS = "the law has no bootstrap samples, so its uncertainty is not known"


def require_predictable(table: Path, out: Path | None) -> Path:
    """The file for the predictions.

    Raises: UserError where none is given, it is no table, or cannot be written.
    """
    if out is None:
        raise UserError("predictions need a file", hint="<out> predictions.csv", field="predict")
    if out.suffix not in ENDINGS:
        raise UserError(
            f"{out}: predictions of {table} go to a {', '.join(ENDINGS)} file",
            hint="to keep the law too, fit once with <out> law.json, then predict with <law> law.json",
            field="out",
        )
    check_writable(out)
    return out


def predict(law: Law, table: Path, out: Path, columns: Mapping[str, str], where: str | None = None) -> Predicted:
    """Predict the rows of a table, and write the table with its predictions.

    `predicted_low` and `predicted_high` bound the law's own loss, `run_low` and `run_high` that of a single run;
    `times_beyond` says how far the row lies outside the range of the law's runs: 1 inside. A row that `where` leaves
    out, or that lacks a variable, has none of these.

    Raises: UserError for an unreadable table, one without a variable of the law, one in other units than the law's, or
    one that was predicted before.
    """
    given = {name: theirs for name, theirs in columns.items() if name in (*law.as_form.variables, "flops")}
    found = open_table(table, given, where, needed=law.as_form.variables)
    for name in law.as_form.variables:
        if name not in found.rows:
            raise UserError(
                f"{table}: {law.form} predicts by a column '{name}'", hint=f"<columns> {name}=NAME", field="predict"
            )
    measured = _with_losses(found, columns.get("loss"))
    notes = _checked(found, law.as_form.variables, measured)
    whole, added = read_columns(table), _predictions(law, found.rows)
    for name in added:
        if name in whole:
            raise UserError(f"{table}: it has a column '{name}' already", hint="rename or drop it", field="predict")
    _write(out, whole, found.rows[ROW].astype(int) - 1, added)
    errors = np.empty(0) if measured is None else relative_errors(law, measured.rows)
    return Predicted(
        table=str(table),
        out=str(out),
        rows=len(found),
        rows_beyond=int((added["times_beyond"] > 1).sum()),
        form=law.form,
        source=law.source,
        intervals_reason=None if len(law.samples) > 1 else NO_INTERVALS,
        median_relative_error=float(np.median(errors)) if len(errors) else None,
        max_relative_error=float(errors.max()) if len(errors) else None,
        notes=notes,
    )


def _predictions(law: Law, rows: Rows) -> Columns:
    added = {"predicted_loss": law.loss(**rows)}
    if len(law.samples) > 1:
        added["predicted_low"], added["predicted_high"] = law.interval(**rows)
        added["run_low"], added["run_high"] = law.run_interval(**rows)
    factors = list(times_beyond(law.fitted_range, rows).values())
    return {**added, "times_beyond": np.max([np.ones(len(added["predicted_loss"])), *factors], axis=0)}


def _with_losses(found: Table, given: str | None) -> Table | None:
    """The rows that have a loss; None where the table has no such column, or no loss in it."""
    loss = given or "loss"
    if loss not in found.words and not set(re.findall(r"[A-Za-z_]\w*", loss)) & set(found.words):
        return None
    named = {} if given is None else {"loss": quoted(given) if given in found.words else given}
    measured = as_numbers(np.asarray(value(loss, found.words)))
    table = replace(found, rows={**found.rows, "loss": measured}, columns={**found.columns, **named})
    picked = measured > 0  # NaN is not
    return replace(table, given={**found.given, **named}).keep(picked) if picked.any() else None


def _checked(found: Table, variables: Sequence[str], measured: Table | None) -> tuple[str, ...]:
    """What a reader must know of a table's losses, once its units are those of the law: checked as for a fit.

    Raises: UserError for values that no run can have, or in other units.
    """
    require_possible(found, variables)
    if is_ours(found.path):
        return ()
    if measured is not None:
        require_nats(measured)
    require_units(found)
    note = None if measured is None else low_loss_note(measured)
    return () if note is None else (with_flags(note),)


def _write(out: Path, whole: Columns, places: np.ndarray, added: Columns) -> None:
    """The whole table, with what was added at some of its rows."""
    import polars

    columns = {name: _plain(values) for name, values in whole.items()}
    for name, values in added.items():
        column = np.full(len(next(iter(whole.values()))), np.nan)
        column[places] = values
        columns[name] = polars.Series(column, nan_to_null=True)
    frame, buffer = polars.DataFrame(columns), io.BytesIO()
    {
        ".csv": frame.write_csv,
        ".jsonl": frame.write_ndjson,
        ".ndjson": frame.write_ndjson,
        ".parquet": frame.write_parquet,
    }[out.suffix](buffer)
    write_atomically(out, buffer.getvalue())


def _plain(values: np.ndarray) -> polars.Series:
    """A column as a table holds it: whole numbers without a point, and nothing for what is missing."""
    import polars

    if values.dtype != float:
        return polars.Series([word or None for word in values.tolist()], dtype=polars.String)
    series = polars.Series(values, nan_to_null=True)
    there = values[np.isfinite(values)]
    return series.cast(polars.Int64) if (there == there.round()).all() and (abs(there) < MOST_WHOLE).all() else series
