"""Files of tables as columns, in the spellings that people have."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from sparsedial.errors import UserError
from sparsedial.law.reading import read_columns

SAME = {"N": [1e8, 2e8], "val loss": [3.5, 3.25]}


def columns(path: Path) -> dict[str, list]:
    return {name: values.tolist() for name, values in read_columns(path).items()}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"N,val loss\n1e8,3.5\n2e8,3.25\n"),
        ("a.csv", b"\xef\xbb\xbfN,val loss\r\n1e8,3.5\r\n2e8,3.25\r\n"),
        ("a.csv", b"N, val loss\n 1e8 , 3.5\n\n2e8, 3.25\n\n"),
        ("a.csv", b"N;val loss\n1e8;3.5\n2e8;3.25\n"),
        ("a.csv", b"N;val loss\n100000000;3,5\n200000000;3,25\n"),
        ("a.csv", b'N,val loss\n"100,000,000",3.5\n"200,000,000",3.25\n'),
        ("a.csv", b"N\tval loss\n1e8\t3.5\n2e8\t3.25\n"),
        ("a.tsv", b"N\tval loss\n1e8\t3.5\n2e8\t3.25\n"),
        ("a.CSV", b"N|val loss\n1e8|3.5\n2e8|3.25\n"),
        ("a.txt", "N\tval loss\n1e8\t3.5\n2e8\t3.25\n".encode("utf-16")),
        ("a.csv.gz", gzip.compress(b"N;val loss\n1e8;3.5\n2e8;3.25\n", mtime=0)),
        ("a.jsonl", b'{"N": 1e8, "val loss": 3.5}\n\n{"N": 200000000, "val loss": "3.25"}\n'),
        ("a.jsonl", b'\xef\xbb\xbf{"N": 1e8, "val loss": 3.5}\n{"N": 2e8, "val loss": 3.25}\n'),
        ("a.jsonl", b'{"N": 1e8, "val loss": 3.5}\r{"N": 2e8, "val loss": 3.25}\r'),
        ("a.json", b'[{"N": 1e8, "val loss": 3.5}, {"N": 2e8, "val loss": 3.25}]'),
        ("a.json", b'{"N": [1e8, 2e8], "val loss": [3.5, 3.25]}'),
    ],
)
def test_one_table_reads_the_same_however_it_is_written(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert columns(tmp_path / name) == SAME


@pytest.mark.parametrize("entry", ["nan", "NaN", "NA", "N/A", "None", "null", "", "Infinity", "-inf", "#DIV/0!", " - "])
def test_a_missing_or_infinite_entry_leaves_a_column_one_of_numbers(tmp_path, entry):
    (tmp_path / "a.csv").write_text(f"loss,D\n3.5,1\n{entry},2\n")
    assert np.isnan(read_columns(tmp_path / "a.csv")["loss"]).tolist() == [False, True]
    (tmp_path / "a.jsonl").write_text(f'{{"loss": 3.5}}\n{json.dumps({"loss": entry})}\n')
    assert np.isnan(read_columns(tmp_path / "a.jsonl")["loss"]).tolist() == [False, True]


def test_numbers_that_json_does_not_know_and_missing_keys_are_missing(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"loss": 3.5}\n{"loss": NaN}\n{"loss": Infinity}\n{"D": 1}\n{"loss": null}\n')
    assert np.isnan(read_columns(tmp_path / "a.jsonl")["loss"]).tolist() == [False, True, True, True, True]


def test_a_line_of_json_ends_at_its_end_alone(tmp_path):
    """Unicode has more ends of lines than JSON lines have; `json.dumps(…, ensure_ascii=False)` leaves them in words."""
    (tmp_path / "a.jsonl").write_text('{"note": "one\u2028two\x85three", "loss": 3.5}\n', encoding="utf-8")
    assert columns(tmp_path / "a.jsonl")["loss"] == [3.5]


def test_inner_objects_of_json_give_columns_of_their_own(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"config": {"lr": 0.1, "opt": {"name": "adam"}}, "loss": 2}\n')
    assert columns(tmp_path / "a.jsonl") == {"config.lr": [0.1], "config.opt.name": ["adam"], "loss": [2.0]}


def test_words_stay_words_and_keep_what_looks_missing_among_them(tmp_path):
    (tmp_path / "a.csv").write_text("router,loss\nNone,2\nHash,\n,3\n")
    assert read_columns(tmp_path / "a.csv")["router"].tolist() == ["None", "Hash", ""]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b'{"loss": 2}\n{"loss": \n', "line 2"),
        ("a.jsonl", b"[1, 2]\n", "not an object"),
        ("a.json", b"7", "neither a list of objects"),
        ("a.json", b"[" * 100_000, "not readable"),
        ("a.json", b'{"N": [1], "D": [1, 2]}', "not readable"),
        ("a.csv", b"loss,D\n1,2\n1,2,3,4\n", "not readable"),
        ("a.csv", b"\xff\xfelos", "not readable"),
        ("a.csv", b"loss,\xe9\n1,2\n", "not readable"),
        ("a.csv.gz", b"\x1f\x8b broken", "not readable"),
        ("a.csv", b"loss, loss\n1,2\n", "two columns are named 'loss'"),
    ],
)
def test_what_is_no_table_is_said_in_one_line(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says) as error:
        read_columns(tmp_path / name)
    assert "\n" not in str(error.value)
