"""Tables of runs, and the expressions that pick rows."""

from pathlib import Path

import numpy as np
import polars
import pytest

from sparsedial.errors import UserError
from sparsedial.law.table import matching, read_table

TABLE = {"flops": np.array([1e11, 1e12, 1e12]), "sparsity": np.array([0.0, 0.0, 0.75])}


@pytest.mark.parametrize(
    ("expression", "picked"),
    [
        ("flops > 1e11", [False, True, True]),
        ("flops > 1e11 and sparsity == 0", [False, True, False]),
        ("not (sparsity > 0.5) or flops < 2", [True, True, False]),
        ("1e10 < flops < 5 * 1e11", [True, False, False]),
    ],
)
def test_an_expression_picks_rows(expression, picked):
    assert matching(TABLE, expression).tolist() == picked


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('x')",
        "flops",
        "flop > 1",
        "flops >",
        "flops.max() > 1",
        "[1]",
        "1 > 0",
        "not flops",
        "flops and sparsity > 1",
        "flops > 'x'",
        "'x' * 10**9 == flops",
        "flops > x\x00",
        "(lambda: 1)()",
        "-" * 5000 + "flops > 1",
        "flops > " + "1+" * 3000 + "1",
    ],
)
def test_anything_but_a_condition_on_columns_is_refused(expression):
    with pytest.raises(UserError):
        matching(TABLE, expression)


def test_csv_json_lines_and_parquet_give_the_same_columns(tmp_path: Path):
    (tmp_path / "a.csv").write_text("final,D,name\n1.5,100,x\n1.25,200,y\n")
    (tmp_path / "a.jsonl").write_text('{"final": 1.5, "D": 100, "name": "x"}\n{"final": 1.25, "D": 200, "name": "y"}\n')
    polars.read_csv(tmp_path / "a.csv").write_parquet(tmp_path / "a.parquet")
    columns = {"loss": "final", "tokens": "D"}
    tables = [read_table(tmp_path / name, columns) for name in ("a.csv", "a.jsonl", "a.parquet")]
    for table in tables:
        assert {name: values.tolist() for name, values in table.items()} == {"loss": [1.5, 1.25], "tokens": [100, 200]}


@pytest.mark.parametrize(
    ("name", "text", "columns", "says"),
    [
        ("a.csv", "x\n1\n", {"loss": "los"}, "no column 'los'"),
        ("a.csv", "x\nmuch\n", {"loss": "x"}, "something else than numbers"),
        ("a.csv", "x\nnan\n", {"loss": "x"}, "something else than numbers"),
        ("a.csv", "x\n", {}, "holds no runs"),
        ("a.csv", "x,x\n1,2\n", {}, "two columns are named 'x'"),
        ("a.csv", "x\n1\n", {"loss": "'x' * x"}, "mixes words and numbers"),
        ("a.csv", "x\n1\n", {"loss": "x > 0"}, "something else than numbers"),
        ("a.csv", "", {}, "holds no runs"),
        ("a.parquet", "no parquet", {}, "not readable"),
        ("a.jsonl", "{", {}, "not readable"),
        ("a.xlsx", "x", {}, "unknown kind"),
    ],
)
def test_a_bad_table_is_refused(tmp_path: Path, name, text, columns, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=says):
        read_table(tmp_path / name, columns)


def test_rows_are_picked_by_words_and_columns_made_by_arithmetic(tmp_path: Path):
    (tmp_path / "a.csv").write_text("L,params_b,router\n2.0,1.5,Hash\n1.9,,Dense\n1.8,3,Hash\n")
    columns = {"loss": "L", "total_parameters": "params_b * 1e9"}
    table = read_table(tmp_path / "a.csv", columns, where="router == 'Hash'")
    assert table["total_parameters"].tolist() == [1.5e9, 3e9]
    with pytest.raises(UserError, match="params_b"):
        read_table(tmp_path / "a.csv", columns)


def test_a_table_of_every_step_is_not_a_table_of_runs(tmp_path: Path):
    polars.DataFrame({"loss": np.ones(1_000_000)}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="1,000,000 rows"):
        read_table(tmp_path / "a.parquet", {})


def test_a_tower_of_powers_is_a_number_too_large_and_takes_no_time(tmp_path: Path):
    """As whole numbers it would run for hours."""
    assert matching(TABLE, "flops < 9**9**9**9").tolist() == [True, True, True]
    (tmp_path / "a.csv").write_text("x\n1\n")
    with pytest.raises(UserError, match="something else than numbers"):
        read_table(tmp_path / "a.csv", {"loss": "2**2**100000"})
