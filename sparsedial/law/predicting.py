"""Predictions of a law for the rows of a table, written beside the table's own columns."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparsedial.errors import UserError
from sparsedial.law.choose import relative_errors, select
from sparsedial.law.fit import Rows
from sparsedial.law.law import Law
from sparsedial.law.table import _value as value_of
from sparsedial.law.table import columns_of, matching, read_frame
from sparsedial.records.optimum import Predicted
from sparsedial.store import check_writable, write_atomically

if TYPE_CHECKING:
    import polars

ENDINGS = (".csv", ".jsonl", ".ndjson", ".parquet")
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
    """Predict every row of a table, and write the table with its predictions.

    `predicted_low` and `predicted_high` bound the law's own loss, `run_low` and `run_high` that of a single run;
    `times_beyond` says how far the row lies outside the range of the law's runs: 1 inside. A row that lacks a variable
    has none of these.

    Raises: UserError for an unreadable table, one without a variable of the law, or one that was predicted before.
    """
    frame = read_frame(table)
    if where is not None:
        frame = frame.filter(matching(columns_of(frame), where))
    if not len(frame):
        raise UserError(f"{table}: holds no runs" + (f" with {where}" if where else ""))
    rows = _variables(law, frame, table, columns)
    whole = np.logical_and.reduce([np.isfinite(rows[name]) for name in law.as_form.variables])
    if not whole.any():
        raise UserError(f"{table}: no row holds {', '.join(law.as_form.variables)}", field="predict")
    added = _predictions(law, select(rows, whole))
    for name in added:
        if name in frame.columns:
            raise UserError(f"{table}: it has a column '{name}' already", hint="rename or drop it", field="predict")
    _write(out, _with_columns(frame, whole, added))
    errors = _errors(law, select(rows, whole))
    return Predicted(
        table=str(table),
        out=str(out),
        rows=int(whole.sum()),
        rows_beyond=int((added["times_beyond"] > 1).sum()),
        form=law.form,
        source=law.source,
        intervals_reason=None if len(law.samples) > 1 else NO_INTERVALS,
        median_relative_error=float(np.median(errors)) if len(errors) else None,
        max_relative_error=float(errors.max()) if len(errors) else None,
    )


def _variables(law: Law, frame: polars.DataFrame, table: Path, columns: Mapping[str, str]) -> Rows:
    """The law's variables of every row; FLOPs and loss too, where the table has them. Missing values are NaN."""
    given = columns_of(frame)
    wanted = {name: columns.get(name, name) for name in (*law.as_form.variables, "flops", "loss")}
    return {
        name: values
        for name, theirs in wanted.items()
        if (values := _numbers(given, name, theirs, table, needed=name in law.as_form.variables)) is not None
    }


def _numbers(table: Mapping[str, np.ndarray], ours: str, theirs: str, path: Path, *, needed: bool) -> np.ndarray | None:
    """A column by name, or arithmetic over columns; None where one that is not needed is missing."""
    words = set(re.findall(r"[A-Za-z_]\w*", theirs))
    if theirs not in table and not words & set(table):
        if not needed:
            return None
        raise UserError(f"{path}: no column '{theirs}' for {ours}", hint=f"<columns> {ours}=NAME", field="predict")
    values = table[theirs] if theirs in table else value_of(theirs, table)
    if values.dtype != float:
        raise UserError(f"{path}: column '{theirs}' does not hold numbers", field="predict")
    return values


def _predictions(law: Law, rows: Rows) -> dict[str, np.ndarray]:
    added = {"predicted_loss": law.loss(**rows)}
    if len(law.samples) > 1:
        added["predicted_low"], added["predicted_high"] = law.interval(**rows)
        added["run_low"], added["run_high"] = law.run_interval(**rows)
    places = range(len(added["predicted_loss"]))
    shapes = [{name: float(values[place]) for name, values in rows.items()} for place in places]
    return {**added, "times_beyond": np.array([max([1.0, *law.outside(shape).values()]) for shape in shapes])}


def _errors(law: Law, rows: Rows) -> np.ndarray:
    if "loss" not in rows:
        return np.empty(0)
    return relative_errors(law, select(rows, rows["loss"] > 0))  # NaN is not


def _with_columns(frame: polars.DataFrame, whole: np.ndarray, added: Mapping[str, np.ndarray]) -> polars.DataFrame:
    import polars

    series = []
    for name, values in added.items():
        column = np.full(len(whole), np.nan)
        column[whole] = values
        series.append(polars.Series(name, column, nan_to_null=True))
    return frame.with_columns(series)


def _write(out: Path, frame: polars.DataFrame) -> None:
    buffer = io.BytesIO()
    {
        ".csv": frame.write_csv,
        ".jsonl": frame.write_ndjson,
        ".ndjson": frame.write_ndjson,
        ".parquet": frame.write_parquet,
    }[out.suffix](buffer)
    write_atomically(out, buffer.getvalue())
