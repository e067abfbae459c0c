"""The notebooks in examples/ run from their first cell to their last, and show records as tables."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from sparsedial.records.record import Record

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))


def run(cell: str, names: dict[str, Any]) -> Any:
    """Run a cell; what its last line shows, or None."""
    tree = ast.parse(cell)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return eval(ast.unparse(last), names) if last else None


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.name)
def test_a_notebook_runs_from_its_first_cell_to_its_last(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells), "outputs grow old: clear them"
    names: dict[str, Any] = {}
    shown = [run("".join(cell["source"]), names) for cell in cells]
    tables = [value._repr_html_() for value in shown if isinstance(value, Record)]
    assert len(tables) > 2
    assert all(table.startswith("<table>") for table in tables)


def test_there_is_a_notebook():
    assert NOTEBOOKS
