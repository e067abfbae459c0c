"""A table of runs as columns, from a study, CSV, JSON lines or Parquet; an expression may select rows."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparsedial.errors import UserError, nearest
from sparsedial.records.kinds import kind_of
from sparsedial.records.record import read
from sparsedial.records.run import Run
from sparsedial.records.study import STUDY_FILE, read_finished

MOST_RUNS = 20_000
TRUNK = "trunk"  # the column that names what branches of one run share
RUN_FILES = ("runs/*/run.json", "*/run.json")  # in the folder of `train`, or in that of its runs
RUN_FIELDS = ("hash", "trunk", "tokens", "flops", "total_parameters", "active_parameters", "seconds")
COMPARE: dict[type, Callable[..., Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
ARITHMETIC: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
JOINS: dict[type, Callable[..., Any]] = {ast.BitAnd: np.logical_and, ast.BitOr: np.logical_or}


def read_table(
    path: Path, columns: Mapping[str, str], where: str | None = None, group: str | None = None
) -> dict[str, np.ndarray]:
    """A table under our names: the columns that `columns` maps, and every other numeric column under its own name.

    * `columns` maps our names to columns of the table, or to arithmetic over them (`params_b * 1e9`).
    * `where` selects rows before that.
    * `group` names a column, of words or numbers, that becomes the numbered column `group`. Rows that share an entry
      are not independent; a row without one is. By default it is `trunk` where there is such a column.

    A study (its folder or `study.json`) gives its finished cells, a folder of runs its finished runs.

    Raises: UserError for a missing or unreadable file, no rows or too many, or a mapped column that is missing or not
    numeric in the selected rows.
    """
    table = _read(path)
    if where is not None and table:
        picked = matching(table, where)
        table = {name: values[picked] for name, values in table.items()}
    rows = len(next(iter(table.values()))) if table else 0
    if not rows:
        raise UserError(f"{path}: holds no runs" + (f" with {where}" if where else ""))
    if rows > MOST_RUNS:
        raise UserError(
            f"{path}: {rows:,} rows are too many: a law is fitted to runs, one row each",
            hint="keep each run's last row, for example with <where> 'step == 250000'",
        )
    numbers = {name: values for name, values in table.items() if _all_numbers(values)}
    found = {name: values for name, values in numbers.items() if name not in columns.values()}
    found |= {ours: _mapped(path, table, numbers, ours, theirs) for ours, theirs in columns.items()}
    if group is not None and group not in table:
        raise UserError(f"{path}: no column '{group}' to group by", hint=nearest(group, table))
    if group is not None or TRUNK in table:
        found["group"] = _numbered(table[group or TRUNK])
    if group is not None and not found["group"].any():
        raise UserError(
            f"{path}: every run has the same '{group}', so none is independent of another",
            hint="leave <group> out, or name a column that differs between trunks",
        )
    return found


def _numbered(entries: np.ndarray) -> np.ndarray:
    """A number for each entry, equal ones alike; every missing one has a number of its own."""
    missing = np.isnan(entries) if entries.dtype == float else entries == ""
    numbers = np.unique(entries, return_inverse=True)[1]
    numbers[missing] = len(entries) + np.arange(missing.sum())
    return np.unique(numbers, return_inverse=True)[1].astype(float)


def _all_numbers(values: np.ndarray) -> bool:
    return values.dtype == float and bool(np.isfinite(values).all())


def _mapped(
    path: Path, table: Mapping[str, np.ndarray], numbers: Mapping[str, np.ndarray], ours: str, theirs: str
) -> np.ndarray:
    if theirs in numbers:
        return numbers[theirs]
    if theirs in table:
        raise UserError(f"{path}: column '{theirs}' does not hold a number in every row")
    if theirs.isidentifier():
        raise UserError(
            f"{path}: no column '{theirs}' for {ours}",
            hint=nearest(theirs, table) or f"it has {', '.join(sorted(table))}",
        )
    values = np.broadcast_to(_value(theirs, numbers), (len(next(iter(table.values()))),))
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise UserError(f"{path}: '{theirs}' for {ours} does not give a number in every row")
    return values.astype(float)


def _read(path: Path) -> dict[str, np.ndarray]:
    """Every column as floats, or else as words; a missing entry is NaN or an empty word."""
    import polars

    if (path / STUDY_FILE).exists():
        path = path / STUDY_FILE
    readers = {
        ".csv": lambda: polars.read_csv(path, infer_schema_length=None),
        ".jsonl": lambda: polars.read_ndjson(path, infer_schema_length=None),
        ".ndjson": lambda: polars.read_ndjson(path, infer_schema_length=None),
        ".parquet": lambda: polars.read_parquet(path),
    }
    if not path.exists():
        raise UserError(f"{path}: no such file")
    try:
        if path.is_dir():
            frame = polars.DataFrame(_run_rows(path), infer_schema_length=None)
        elif (kind := path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix) in readers:
            frame = readers[kind]()
        elif kind_of(path) == "study":
            frame = polars.DataFrame(_study_rows(path), infer_schema_length=None)
        else:
            raise UserError(
                f"{path}: unknown kind of table",
                hint="give the folder of a study or of runs, or a .csv, .jsonl (also .gz) or .parquet file",
            )
    except polars.exceptions.NoDataError:
        return {}
    except (OSError, ValueError, polars.exceptions.PolarsError) as error:
        raise UserError(f"{path}: not readable as a table ({' '.join(str(error).split())[:120]})") from error
    for name in frame.columns:
        first, again, _ = name.partition("_duplicated_")  # as polars renames the second of two columns of one name
        if again and first in frame.columns:
            raise UserError(f"{path}: two columns are named '{first}'", hint="rename one, so that it is clear which")
    return {name: _values(frame[name]) for name in frame.columns}


def _values(column: Any) -> np.ndarray:
    if column.dtype.is_numeric():
        return column.cast(float).fill_null(float("nan")).to_numpy()
    return np.array(["" if value is None else str(value) for value in column])


def _study_rows(path: Path) -> list[dict[str, float | str | None]]:
    cells = [row for row in read_finished(path).cells_table if row.status == "finished"]
    names = ("loss", "total_parameters", "active_parameters", "tokens", "sparsity", "d_model", "seconds")
    return [
        {
            **{name: getattr(row, name) for name in names},
            "flops": row.budget_flops,
            "experts": _experts(row.sparsity),
        }
        for row in cells
    ]


def _run_rows(folder: Path) -> list[dict[str, float | str | None]]:
    """The finished runs of a folder; their loss is that on the validation split, as in a study.

    Raises: UserError where there are none, for a damaged or foreign record, or runs on several texts.
    """
    files = sorted(file for pattern in RUN_FILES for file in folder.glob(pattern))
    if not files:
        raise UserError(f"{folder}: holds no study and no runs", hint="`study` and `train` write such folders")
    runs = [run for run in (read(file, Run) for file in files) if run.finished]
    texts = {run.text_digest for run in runs}
    if len(texts) > 1:
        raise UserError(
            f"{folder}: its runs learned from {len(texts)} texts, whose losses cannot be compared",
            hint="keep the runs on each text in a folder of their own",
        )
    return [
        {
            **{name: getattr(run, name) for name in RUN_FIELDS},
            "loss": run.validation_loss,
            "sparsity": run.sparsity.experts,
            "experts": _experts(run.sparsity.experts),
        }
        for run in runs
    ]


def _experts(sparsity: float) -> float:
    """Experts as laws count them: experts/top_k."""
    return 1 / (1 - sparsity)


def matching(table: Mapping[str, np.ndarray], expression: str) -> np.ndarray:
    """Which rows an expression like `flops > 1e12 and sparsity == 0` picks.

    Raises: UserError for anything but comparisons, arithmetic, and/or/not over the table's columns.
    """
    result = _value(expression, table)
    size = len(next(iter(table.values())))
    if np.shape(result) != (size,) or np.asarray(result).dtype != bool:
        raise UserError(f"'{expression}' is not a condition on rows", hint="write one like flops>1e12")
    return np.asarray(result)


def _value(expression: str, table: Mapping[str, np.ndarray]) -> Any:
    """The value of an expression over columns; numbers are floats, since powers of integers could take for ever."""
    try:
        with np.errstate(all="ignore"):  # a division by zero is later refused as not a number
            return _evaluate(ast.parse(expression, mode="eval").body, table, expression)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # ValueError: a null byte, before 3.11.4
        raise UserError(
            f"cannot read the expression '{_short(expression)}'", hint="write one like flops>1e12"
        ) from error
    except (TypeError, OverflowError) as error:
        raise UserError(
            f"'{_short(expression)}' mixes words and numbers, or holds a number too large",
            hint="write one like flops>1e12",
        ) from error


def _short(expression: str) -> str:
    return expression if len(expression) <= 60 else f"{expression[:57]}…"


def _evaluate(node: ast.AST, table: Mapping[str, np.ndarray], expression: str) -> Any:
    def again(part: ast.AST) -> Any:
        return _evaluate(part, table, expression)

    if isinstance(node, ast.Name):
        if node.id not in table:
            raise UserError(f"'{expression}': no column '{node.id}'", hint=nearest(node.id, table))
        return table[node.id]
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return np.float64(node.value)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BoolOp):
        join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        return join.reduce([_condition(again(value), expression) for value in node.values])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return np.logical_not(_condition(again(node.operand), expression))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -again(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in JOINS:
        sides = [_condition(again(side), expression) for side in (node.left, node.right)]
        return JOINS[type(node.op)](*sides)
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        return ARITHMETIC[type(node.op)](again(node.left), again(node.right))
    if isinstance(node, ast.Compare) and all(type(op) in COMPARE for op in node.ops):
        sides = [again(side) for side in (node.left, *node.comparators)]
        parts = [COMPARE[type(op)](sides[index], sides[index + 1]) for index, op in enumerate(node.ops)]
        return np.logical_and.reduce(parts)
    raise UserError(
        f"'{expression}' holds more than comparisons and arithmetic over columns", hint="write one like flops>1e12"
    )


def _condition(value: Any, expression: str) -> Any:
    if np.asarray(value).dtype != bool:
        raise UserError(
            f"'{_short(expression)}' combines something that is not a condition",
            hint="`&` and `|` need brackets: (flops>1e12) & (sparsity==0); or use and, or, not",
        )
    return value
