"""Tables of runs under our names."""

import json
from pathlib import Path

import numpy as np
import polars
import pytest
from msgspec.structs import replace

from sparsedial.errors import UserError
from sparsedial.law.table import open_table, read_table
from sparsedial.records.record import write
from sparsedial.store import write_json
from tests.sweep.simulation import steady


def test_csv_json_lines_and_parquet_give_the_same_columns(tmp_path: Path):
    (tmp_path / "a.csv").write_text("final,D,name\n1.5,100,x\n1.25,200,y\n")
    (tmp_path / "a.jsonl").write_text('{"final": 1.5, "D": 100, "name": "x"}\n{"final": 1.25, "D": 200, "name": "y"}\n')
    polars.read_csv(tmp_path / "a.csv").write_parquet(tmp_path / "a.parquet")
    columns = {"loss": "final", "tokens": "D"}
    tables = [read_table(tmp_path / name, columns) for name in ("a.csv", "a.jsonl", "a.parquet")]
    for table in tables:
        ours = {"loss": [1.5, 1.25], "tokens": [100, 200], "row": [1, 2]}
        assert {name: values.tolist() for name, values in table.items()} == {
            **ours,
            "final": [1.5, 1.25],
            "D": [100, 200],
        }


@pytest.mark.parametrize(
    ("name", "text", "columns", "says"),
    [
        ("a.csv", "x\n1\n", {"loss": "los"}, "no column 'los'"),
        ("a.csv", "x\nmuch\n", {"loss": "x"}, "row 1 has x='much', which is not a number"),
        ("a.csv", "x\nnan\n", {"loss": "x"}, "does not give a number in any row"),
        ("a.csv", "x\n", {}, "holds no runs"),
        ("a.csv", "x,x\n1,2\n", {}, "two columns are named 'x'"),
        ("a.csv", "x\n1\n", {"loss": "'x' * x"}, "mixes words and numbers"),
        ("a.csv", "x\n1\n", {"loss": "x > 0"}, "does not give a number in any row"),
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
    table = open_table(tmp_path / "a.csv", columns)
    assert table.rows["total_parameters"].tolist() == [1.5e9, 3e9]  # a row without the size is dropped
    assert (table.dropped, dict(table.without)) == (1, {"total_parameters": 1})


def test_a_table_of_every_step_is_not_a_table_of_runs(tmp_path: Path):
    polars.DataFrame({"loss": np.ones(1_000_000)}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="1,000,000 rows"):
        read_table(tmp_path / "a.parquet", {})


def test_a_tower_of_powers_is_a_number_too_large_and_takes_no_time(tmp_path: Path):
    """As whole numbers it would run for hours."""
    (tmp_path / "a.csv").write_text("x\n1\n")
    with pytest.raises(UserError, match="not give a number in any row"):
        read_table(tmp_path / "a.csv", {"loss": "2**2**100000"})


def test_runs_of_one_trunk_are_grouped_and_a_run_without_one_stands_alone(tmp_path: Path):
    rows = [
        {"loss": 2.0, "hash": str(place), "trunk": trunk} for place, trunk in enumerate(["b", None, "a", "b", None])
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    groups = read_table(tmp_path / "a.jsonl", {})["group"].tolist()
    assert groups[0] == groups[3]
    assert len(set(groups)) == 4
    assert len(set(read_table(tmp_path / "a.jsonl", {}, group="hash")["group"].tolist())) == 5
    numbered = "loss,trunk\n2,7\n2,\n2,8\n2,7\n2,\n"
    (tmp_path / "a.csv").write_text(numbered)
    assert len(set(read_table(tmp_path / "a.csv", {})["group"].tolist())) == 4
    (tmp_path / "b.csv").write_text("loss\n2\n1\n")
    assert "group" not in read_table(tmp_path / "b.csv", {})


def runs_folder(folder: Path, *changes: dict) -> Path:
    """A folder as `train` leaves it, of runs that differ from one another as said."""
    layout = steady().bench.lab.layout
    cell = next(cell for cell in steady().cells if cell.experts == 8)
    run = replace(steady().cells[cell].run, tokens=100, trunk=None, validation_loss=2.0, text_digest="t")
    assert layout.shape(cell).experts_per_choice == 4
    for number, change in enumerate(changes):
        write(folder / "runs" / str(number) / "run.json", replace(run, **change))
    return folder


def test_a_folder_of_runs_gives_its_finished_ones(tmp_path: Path):
    changes = {"trunk": "a"}, {"trunk": "a", "tokens": 200}, {"status": "diverged", "validation_loss": None}
    folder = runs_folder(tmp_path, *changes)
    table = read_table(folder, {})
    assert table["tokens"].tolist() == [100, 200]
    assert table["loss"].tolist() == [2.0, 2.0]
    assert table["experts"].tolist() == [4.0, 4.0]  # times those that a token visits
    assert table["group"].tolist() == [0, 0]
    assert read_table(folder / "runs", {})["tokens"].tolist() == [100, 200]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ([], "holds no study and no runs"),
        ([{"status": "diverged"}], "holds no runs"),
        ([{}, {"text_digest": "other"}], "2 texts"),
    ],
)
def test_a_folder_without_runs_that_compare_is_refused(tmp_path: Path, changes, says):
    with pytest.raises(UserError, match=says):
        read_table(runs_folder(tmp_path, *changes), {})


def test_a_record_of_something_else_is_no_run(tmp_path: Path):
    write_json(tmp_path / "runs" / "0" / "run.json", {"status": "finished"})
    with pytest.raises(UserError, match="lacks the field 'hash'"):
        read_table(tmp_path, {})


def test_a_table_without_losses_is_read_with_the_numbers_of_its_rows(tmp_path: Path):
    (tmp_path / "a.csv").write_text("Model Size,D,w\n1e8,1e9,1\n,2e9,2\n2e8,3e9,3\n")
    columns = {"total_parameters": "Model Size", "tokens": "D", "weight": "w"}
    rows = read_table(tmp_path / "a.csv", columns)
    assert (rows["row"].tolist(), rows["tokens"].tolist(), rows["weight"].tolist()) == ([1, 3], [1e9, 3e9], [1, 3])


def test_ours_is_meant_where_the_table_has_the_same_name(tmp_path: Path):
    (tmp_path / "a.csv").write_text("tokens,loss\n1,3\n2,2\n")
    rows = read_table(tmp_path / "a.csv", {"tokens": "tokens*1e9"}, where="tokens > 1e9 and loss < 3")
    assert rows["tokens"].tolist() == [2e9]


def test_columns_that_we_add_are_never_taken_from_the_table(tmp_path: Path):
    (tmp_path / "a.csv").write_text("loss,group,weight,row\n3,1,9,7\n2,1,9,7\n")
    rows = read_table(tmp_path / "a.csv", {})
    assert set(rows) == {"loss", "row"}
    assert rows["row"].tolist() == [1, 2]
    assert read_table(tmp_path / "a.csv", {}, group="loss")["group"].tolist() == [1, 0]


def test_counts_with_a_letter_are_numbers_where_numbers_are_asked_for(tmp_path: Path):
    (tmp_path / "a.csv").write_text("size,loss\n125M,3\n1.3B,2\n7e9,1\n,1\n")
    assert read_table(tmp_path / "a.csv", {"total_parameters": "size"})["total_parameters"].tolist() == [
        125e6,
        1.3e9,
        7e9,
    ]
    assert read_table(tmp_path / "a.csv", {}, where="size == '125M'")["loss"].tolist() == [3]
