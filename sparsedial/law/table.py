"""A table of runs as columns: a study's own, CSV, or JSON lines; columns by name, rows by an expression."""

from __future__ import annotations

import ast
import csv
import json
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparsedial.errors import UserError, nearest
from sparsedial.store import read_json

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
    ast.BitAnd: np.logical_and,
    ast.BitOr: np.logical_or,
}


def read_table(path: Path, columns: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The numeric columns of a table; `columns` maps our names to the table's own where they differ.

    A study (its folder or `study.json`) gives its finished cells.

    Raises: UserError for a missing or unreadable file, or a column that is missing, not a number, or not positive.
    """
    rows = _read_rows(path)
    if not rows:
        raise UserError(f"{path}: holds no runs")
    names = {name for row in rows for name in row}
    for ours, theirs in columns.items():
        if theirs not in names:
            raise UserError(
                f"{path}: no column '{theirs}' for {ours}",
                hint=nearest(theirs, names) or f"it has {', '.join(sorted(names))}",
            )
    taken = {name: name for name in names if name not in columns.values()} | dict(columns)
    table = {ours: _numbers(rows, theirs) for ours, theirs in taken.items()}
    kept = {name: values for name, values in table.items() if values is not None}
    for name in columns:
        if name not in kept:
            raise UserError(f"{path}: column '{columns[name]}' holds something else than numbers")
    return kept


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if path.is_dir():
        path = path / "study.json"
    try:
        if path.name == "study.json":
            return _study_rows(path)
        text = path.read_text()
        if path.suffix == ".csv":
            return list(csv.DictReader(text.splitlines()))
        if path.suffix in (".jsonl", ".ndjson"):
            return [json.loads(line) for line in text.splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as a table ({error})") from error
    raise UserError(f"{path}: unknown kind of table", hint="a study's folder, .csv or .jsonl")


def _study_rows(path: Path) -> list[dict[str, Any]]:
    record = read_json(path)
    if "cells_table" not in record:
        raise UserError(f"{path}: the study is not finished", hint="the same `study` command goes on with it")
    cells = [row for row in record["cells_table"] if row["status"] == "finished"]
    return [{**row, "flops": row["budget_flops"], "experts": max(1, row["experts"])} for row in cells]


def _numbers(rows: list[dict[str, Any]], name: str) -> np.ndarray | None:
    """A column, or None where not every row has a finite number there."""
    try:
        values = np.array([float(row[name]) for row in rows])
    except (KeyError, TypeError, ValueError):
        return None
    return values if np.isfinite(values).all() else None


def matching(table: Mapping[str, np.ndarray], expression: str) -> np.ndarray:
    """Which rows an expression like `flops > 1e12 and sparsity == 0` picks.

    Raises: UserError for anything but comparisons, arithmetic, and/or/not over the table's columns.
    """
    try:
        tree = ast.parse(expression, mode="eval").body
    except SyntaxError as error:
        raise UserError(f"cannot read the expression '{expression}'", hint="like flops>1e12") from error
    result = _evaluate(tree, table, expression)
    size = len(next(iter(table.values())))
    if np.shape(result) != (size,) or np.asarray(result).dtype != bool:
        raise UserError(f"'{expression}' is no condition on rows", hint="like flops>1e12")
    return np.asarray(result)


def _evaluate(node: ast.AST, table: Mapping[str, np.ndarray], expression: str) -> Any:
    def again(part: ast.AST) -> Any:
        return _evaluate(part, table, expression)

    if isinstance(node, ast.Name):
        if node.id not in table:
            raise UserError(f"'{expression}': no column '{node.id}'", hint=nearest(node.id, table))
        return table[node.id]
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.BoolOp):
        join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        return join.reduce([again(value) for value in node.values])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return np.logical_not(again(node.operand))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -again(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        return ARITHMETIC[type(node.op)](again(node.left), again(node.right))
    if isinstance(node, ast.Compare) and all(type(op) in COMPARE for op in node.ops):
        sides = [again(side) for side in (node.left, *node.comparators)]
        parts = [COMPARE[type(op)](sides[place], sides[place + 1]) for place, op in enumerate(node.ops)]
        return np.logical_and.reduce(parts)
    raise UserError(f"'{expression}' holds more than comparisons and arithmetic over columns", hint="like flops>1e12")
