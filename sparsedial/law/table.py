"""A table of runs as columns: a study's own, CSV, JSON lines or Parquet; columns by name, rows by an expression."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparsedial.errors import UserError, nearest
from sparsedial.store import read_json

MOST_RUNS = 20_000
TRUNK = "trunk"  # the column that names what branches of one run share
RUN_FILES = ("runs/*/run.json", "*/run.json")  # in the folder of `train`, or in that of its runs
RUN_FIELDS = ("hash", "trunk", "tokens", "flops", "total_parameters", "active_parameters", "seconds")
NEEDED = (*RUN_FIELDS, "status", "validation_loss", "sparsity", "text_digest")
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
    """A table under our names: the columns that `columns` maps, and every other column of numbers under its own.

    `columns` names the table's own columns, or arithmetic over them (`params_b * 1e9`); `where` picks rows first;
    `group` names a column, of words or numbers, that becomes the numbered column `group`: rows that share an entry are
    not independent, a row without one is; left out, it is `trunk` where there is one. A study (its folder or
    `study.json`) gives its finished cells, a folder of runs its finished runs.

    Raises: UserError for a missing or unreadable file, no rows or too many, or a mapped column that is missing or holds
    anything but numbers in the rows that are left.
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
            hint="keep each run's last row, like --where 'step == 250000'",
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
            hint="leave --group out, or name a column that tells trunks apart",
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
        raise UserError(f"{path}: column '{theirs}' holds something else than numbers in some rows")
    if theirs.isidentifier():
        raise UserError(
            f"{path}: no column '{theirs}' for {ours}",
            hint=nearest(theirs, table) or f"it has {', '.join(sorted(table))}",
        )
    values = np.broadcast_to(_value(theirs, numbers), (len(next(iter(table.values()))),))
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise UserError(f"{path}: '{theirs}' for {ours} gives something else than numbers in some rows")
    return values.astype(float)


def _read(path: Path) -> dict[str, np.ndarray]:
    """Every column as floats, with NaN where an entry is missing, or as words, with an empty one there."""
    import polars

    if (path / "study.json").exists():
        path = path / "study.json"
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
        elif path.name == "study.json":
            frame = polars.DataFrame(_study_rows(path), infer_schema_length=None)
        elif (kind := path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix) in readers:
            frame = readers[kind]()
        else:
            raise UserError(
                f"{path}: unknown kind of table",
                hint="the folder of a study or of runs, .csv, .jsonl (also .gz) or .parquet",
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


def _study_rows(path: Path) -> list[dict[str, Any]]:
    record = read_json(path)
    if "cells_table" not in record:
        raise UserError(f"{path}: the study is not finished", hint="the same `study` command goes on with it")
    cells = [row for row in record["cells_table"] if row["status"] == "finished"]
    names = ("loss", "total_parameters", "active_parameters", "tokens", "sparsity", "d_model", "seconds")
    return [
        {
            **{name: row[name] for name in names},
            "flops": row["budget_flops"],
            "experts": _experts(row["sparsity"]),
        }
        for row in cells
    ]


def _run_rows(folder: Path) -> list[dict[str, Any]]:
    """The finished runs of a folder; their loss is that on the validation split, as a study's.

    Raises: UserError where there are none, for a damaged or foreign record, or runs on several texts.
    """
    files = sorted(file for pattern in RUN_FILES for file in folder.glob(pattern))
    if not files:
        raise UserError(f"{folder}: holds no study and no runs", hint="`study` and `train` leave such folders")
    rows, texts = [], set()
    for file in files:
        record = read_json(file)
        lacking = [name for name in NEEDED if name not in record]
        if lacking:
            raise UserError(f"{file}: no run of this version: it lacks {lacking[0]}")
        if record["status"] != "finished":
            continue
        texts.add(record["text_digest"])
        sparsity = record["sparsity"]["experts"]
        row = {**{name: record[name] for name in RUN_FIELDS}, "loss": record["validation_loss"]}
        rows.append({**row, "sparsity": sparsity, "experts": _experts(sparsity)})
    if len(texts) > 1:
        raise UserError(
            f"{folder}: its runs learned from {len(texts)} texts, whose losses do not compare",
            hint="keep the runs on each text in a folder of their own",
        )
    return rows


def _experts(sparsity: float) -> float:
    """Experts as laws count them: how many times those that a token visits."""
    return 1 / (1 - sparsity)


def matching(table: Mapping[str, np.ndarray], expression: str) -> np.ndarray:
    """Which rows an expression like `flops > 1e12 and sparsity == 0` picks.

    Raises: UserError for anything but comparisons, arithmetic, and/or/not over the table's columns.
    """
    result = _value(expression, table)
    size = len(next(iter(table.values())))
    if np.shape(result) != (size,) or np.asarray(result).dtype != bool:
        raise UserError(f"'{expression}' is no condition on rows", hint="like flops>1e12")
    return np.asarray(result)


def _value(expression: str, table: Mapping[str, np.ndarray]) -> Any:
    """What an expression over columns gives; numbers are floats, so that no power of whole numbers runs for ever."""
    try:
        with np.errstate(all="ignore"):  # a division by zero gives what is then refused as no number
            return _evaluate(ast.parse(expression, mode="eval").body, table, expression)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # ValueError: a null byte, before 3.11.4
        raise UserError(f"cannot read the expression '{_short(expression)}'", hint="like flops>1e12") from error
    except (TypeError, OverflowError) as error:
        raise UserError(
            f"'{_short(expression)}' mixes words and numbers, or holds a number too large", hint="like flops>1e12"
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
        parts = [COMPARE[type(op)](sides[place], sides[place + 1]) for place, op in enumerate(node.ops)]
        return np.logical_and.reduce(parts)
    raise UserError(f"'{expression}' holds more than comparisons and arithmetic over columns", hint="like flops>1e12")


def _condition(value: Any, expression: str) -> Any:
    if np.asarray(value).dtype != bool:
        raise UserError(
            f"'{_short(expression)}' joins something that is no condition",
            hint="`&` and `|` want brackets: (flops>1e12) & (sparsity==0); or use and, or, not",
        )
    return value
