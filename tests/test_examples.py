"""What lies in examples/ runs: notebooks from their first cell to their last, and scripts."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import sparsedial
from examples import two_domains
from sparsedial.model.digests import digest_of
from sparsedial.model.reading import read_checkpoint
from sparsedial.records.record import Record
from sparsedial.shape.counts import total_parameters
from sparsedial.shape.shape import Shape

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


def test_the_model_of_two_texts_is_trained_for_each_seed(tmp_path):
    package = Path(sparsedial.__file__).parent
    texts = [str(package / "training"), str(package / "model")]
    checkpoints = two_domains.main([*texts, str(tmp_path), "--seeds", "2", "--tokens", "20k", "--shape", "32", "8"])
    shapes = [read_checkpoint(folder).shape for folder in checkpoints]
    assert [(shape.experts, shape.top_k, shape.d_expert) for shape in shapes] == [(64, 6, 8)] * 2
    assert len({digest_of(folder) for folder in checkpoints}) == 2


def test_its_full_size_is_some_ten_million_parameters():
    assert 9.5e6 < total_parameters(Shape(**two_domains.SHAPE)) < 1.05e7
