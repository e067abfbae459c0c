"""`select` as a user runs it: the answer, the table, the page, a model trained on what stays, and bad input."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import polars
import pytest

import sparsedial
from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.records.selection import Selected
from sparsedial.selection.table import COLUMNS
from sparsedial.text.manifest import read_manifest
from sparsedial.text.prepare import prepare
from tests.records.held import of_file, of_values
from tests.selection.planted import edited, prose
from tests.verbs.test_train import words as training


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Two domains of made-up prose with near and equal copies, one of them with <tags>, and a bad line."""
    for domain in ("code", "prose"):
        (tmp_path / "text" / domain).mkdir(parents=True)
        for number in range(60):
            words = prose(number + 100 * (domain == "code"))
            (tmp_path / "text" / domain / f"{number:02}.txt").write_text(" ".join(words))
            if number % 3 == 0:
                copy = " ".join(edited([*words, "<b>"], number % 4, number))
                (tmp_path / "text" / domain / f"copy{number:02}.txt").write_text(copy)
    lines = [json.dumps({"text": " ".join(prose(500 + number))}) for number in range(200)]
    (tmp_path / "text" / "prose" / "lines.jsonl").write_text("\n".join([*lines[:100], '{"text": ', *lines[100:]]))
    return tmp_path / "text"


def test_the_answer_holds_to_its_contract_and_is_the_record(text, tmp_path, capsys):
    out = tmp_path / "kept"
    assert main(["select", str(text), "--keep", "0.5", "--out", str(out), "--json"]) == 0
    captured = capsys.readouterr()
    answer = of_values(json.loads(captured.out), Selected)
    assert of_file(out / "select.json", Selected) == answer
    assert answer.manifest.path == str(out / "documents.parquet")
    assert answer.domains is not None
    assert sorted(answer.domains) == ["code", "prose"]
    assert answer.read.documents == sum(part.read.documents for part in answer.domains.values())
    assert answer.skipped_lines == 1
    assert "lines.jsonl, line 101" in captured.err
    assert sorted(path.name for path in out.iterdir()) == ["documents.parquet", "examples.html", "select.json"]
    page = (out / "examples.html").read_text()
    for one in answer.filters:
        assert f'id="{one.examples.partition("#")[2]}"' in page
    rows = read_manifest(out / "documents.parquet").collect()
    assert tuple(rows.columns) == COLUMNS
    assert (rows["domain"] == rows["id"].str.split("/").list.first()).all()


def test_the_columns_are_those_of_the_contract():
    """As CONTRACTS spells them."""
    spelled = "id, source, group, domain, split, bytes, first_token, tokens, digest, duplicate_of, jaccard"
    assert ", ".join(COLUMNS) == f"{spelled}, loss, dsir, quality, kept, reason"


def test_the_table_says_what_was_left_out_and_what_comes_next(text, tmp_path, capsys):
    assert main(["select", str(text), "--out", str(tmp_path / "what stays")]) == 0
    said = capsys.readouterr().out
    for words in ("read ", "near ", "stays ", "held out", "by domain", "examples.html"):
        assert words in said
    assert f"sparsedial study '{tmp_path / 'what stays'}' --time 10m" in said
    assert "random" not in said


def test_the_page_shows_both_sides_and_escapes_text(text, tmp_path):
    sparsedial.select(text, out=tmp_path / "kept", keep=0.5, near=0.9)
    page = (tmp_path / "kept" / "examples.html").read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    near = page.partition('id="near"')[2].partition("<h2")[0]
    left_out, stays = near.partition("<h3>Stay</h3>")[::2]
    for part, (low, high) in ((left_out, (90, 100)), (stays, (60, 90))):
        shares = [float(share) for share in re.findall(r"They share ([\d.]+)\s%", part)]
        assert shares
        assert all(low <= share <= high for share in shares)
    assert "<mark>" in near


def test_a_model_trains_on_what_stays(text, tmp_path, capsys):
    assert main(["select", str(text), "--keep", "0.5", "--out", str(tmp_path / "kept")]) == 0
    capsys.readouterr()
    assert main(training(tmp_path / "kept", tmp_path / "model", "--tokens", "1k", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "finished"
    rows = read_manifest(tmp_path / "kept" / "documents.parquet").filter("kept").collect()
    stored = read_manifest(tmp_path / "model" / "text" / "documents.parquet").collect()
    assert stored["id"].to_list() == rows["id"].to_list()


def test_a_study_begins_on_what_stays(text, tmp_path, capsys):
    answer = sparsedial.select(text, out=tmp_path / "kept")
    left_out = sum(one.removed.documents for one in answer.filters if one.name != "equal_to_train")
    capsys.readouterr()
    asked = ["--budgets", "3e11,6e11", "--out", str(tmp_path / "study"), "--dry-run", "--json"]
    assert main(["study", str(tmp_path / "kept"), *asked]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["cells"] > 1
    assert f"the selection leaves out {left_out} documents" in captured.err


def test_the_standard_library_is_a_text_as_well(tmp_path, monkeypatch):
    from sparsedial.text import corpus

    whole = corpus.standard_library()
    fewer = corpus.Corpus(files=whole.files[:60], sources=(), python_version=whole.python_version)
    monkeypatch.setattr(corpus, "standard_library", lambda: fewer)
    answer = sparsedial.select(out=tmp_path / "kept")
    assert answer.sources == ()
    assert answer.domains is None
    assert answer.read.documents == 60
    text = prepare((str(tmp_path / "kept"),), folder=tmp_path / "text")
    assert text.documents == answer.kept.documents


def test_a_threshold_too_low_for_a_sketch_is_said(text, tmp_path):
    low = sparsedial.select(text, out=tmp_path / "low", near=0.01)
    assert "only 72 % of the pairs that share 0.01 are found" in low.warnings[0]
    assert sparsedial.select(text, out=tmp_path / "kept", near=0.5).warnings == ()


def error(words: list[str], capsys) -> str:
    assert main(["select", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if not line.startswith(("comparing ", "skipped "))]
    assert lines[0].startswith("error: ")
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: "))
    return captured.err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--keep", "0"], "--keep: 0 is not a positive number"),
        (["--keep", "1"], "--keep: 1 does not lie between 0 and 1"),
        (["--keep", "1.5"], "--keep: 1.5 does not lie between 0 and 1"),
        (["--keep", "-0.5"], "--keep: -0.5 is not a positive number"),
        (["--keep", "half"], "--keep: cannot read 'half'"),
        (["--keep", "150%"], "--keep: 1.5 does not lie between 0 and 1"),
        (["--spans", "half"], "--spans: cannot read 'half'"),
        (["--spans", "100%"], "--spans: 1 does not lie at least at 0"),
        (["--near", "0"], "--near: 0 is not a positive number"),
        (["--near", "1.01"], "--near: 1.01 does not lie above 0 and at most at 1"),
        (["--score", "randon"], "did you mean 'random'?"),
        (["--workers", "0"], "--workers: 0 is below 1"),
        (["--seed", "-1"], "--seed: -1 is below 0"),
    ],
)
def test_bad_settings_are_refused(text, tmp_path, capsys, flags, says):
    assert says in error([str(text), "--out", str(tmp_path / "kept"), *flags], capsys)
    assert not (tmp_path / "kept").exists()


def test_a_folder_that_is_not_free_is_refused_and_kept(text, tmp_path, capsys):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "mine").write_text("mine")
    assert "holds files, and nothing is overwritten" in error([str(text), "--out", str(tmp_path / "kept")], capsys)
    assert "is a file" in error([str(text), "--out", str(tmp_path / "kept" / "mine")], capsys)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["mine"]


def test_a_folder_in_the_text_is_refused(text, capsys):
    assert "lies in" in error([str(text), "--out", str(text / "kept")], capsys)
    assert not (text / "kept").exists()


def test_out_is_needed(text, capsys):
    assert "'out' is missing" in error([str(text)], capsys)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "it holds no file"),
        ({"a.txt": b""}, "no text in 1 file"),
        ({"a.txt": b" \n"}, "no text in 1 file"),
        ({"a.txt": b"a line\n"}, "too few to train on"),
        ({"a.txt": b"\xff\xfe" * 5000 + b"\xff"}, "a.txt"),
        ({"a.jsonl": b'{"text": "a"}\n{"text": \n' * 900}, "a.jsonl, line 2"),
        ({f"{number}.txt": b"all alike " * 100 for number in range(60)}, "none of 60 documents is left"),
    ],
)
def test_a_text_of_which_nothing_can_be_selected_is_refused(tmp_path, capsys, content, says):
    (tmp_path / "text").mkdir()
    for name, data in content.items():
        (tmp_path / "text" / name).write_bytes(data)
    assert says in error([str(tmp_path / "text"), "--out", str(tmp_path / "kept")], capsys)
    assert not (tmp_path / "kept").exists()


def test_a_blank_document_is_none_and_a_long_one_comes_in_parts(tmp_path):
    (tmp_path / "text").mkdir()
    for number in range(100):
        words = [] if number % 2 else prose(number, 200)
        (tmp_path / "text" / f"{number:02}.txt").write_text(" ".join(words))
    (tmp_path / "text" / "long.txt").write_text(" ".join(prose(1000, 300_000)))
    answer = sparsedial.select(tmp_path / "text", out=tmp_path / "kept", workers=1)
    rows = read_manifest(tmp_path / "kept" / "documents.parquet").collect()
    assert rows.filter(polars.col("id") == "01.txt").height == 0
    assert rows.filter(polars.col("source") == "long.txt").height >= 20
    assert answer.read.documents == rows.height == answer.kept.documents


def selected_with(modules: Path, text: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with these modules before any others."""
    path = os.pathsep.join([str(modules), *sys.path])
    words = [sys.executable, "-m", "sparsedial", "select", str(text), "--out", str(out)]
    return subprocess.run(words, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)


def test_a_missing_rensa_names_the_extra(text, tmp_path):
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "rensa.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'rensa'\", name='rensa')"
    )
    done = selected_with(tmp_path / "without", text, tmp_path / "kept")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: the package 'rensa' is missing",
        "hint: pip install 'sparsedial[select]'",
    ]


@pytest.mark.parametrize("left_bytes", [0, 100])
def test_a_full_disk_is_one_line_and_leaves_nothing(text, tmp_path, monkeypatch, left_bytes):
    from sparsedial.selection import sketch_file

    class Full(io.FileIO):
        def write(self, data):
            if len(data) > left_bytes:
                raise OSError(28, "No space left on device")
            return super().write(data)

    monkeypatch.setattr(sketch_file, "open", lambda path, _: Full(path, "a+"), raising=False)
    with pytest.raises(UserError, match="No space left on device"):
        sparsedial.select(text, out=tmp_path / "kept")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text"]


def test_it_needs_neither_torch_nor_matplotlib(text, tmp_path):
    (tmp_path / "without").mkdir()
    for name in ("torch", "matplotlib", "tokenizers"):
        (tmp_path / "without" / f"{name}.py").write_text(f"raise ModuleNotFoundError(name='{name}')")
    done = selected_with(tmp_path / "without", text, tmp_path / "kept")
    assert done.returncode == 0, done.stderr
