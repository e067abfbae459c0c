"""`select --tasks`: documents that hold items of tasks go, or are told."""

from __future__ import annotations

from pathlib import Path

import pytest

import sparsedial
from sparsedial.cli.main import main
from sparsedial.text.manifest import read_manifest
from tests.evaluation.asking import DATA, rows
from tests.selection.planted import prose

pytest.importorskip("lm_eval")
PASSAGE = rows("squad_v1_xquad_en/dev_subset")[0]["context"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text").mkdir()
    for number in range(60):
        words = " ".join(prose(number))
        held = f"{words}\n{PASSAGE.upper()}" if number in (7, 8) else words
        (tmp_path / "text" / f"{number:02}.txt").write_text(held)
    return tmp_path / "text"


def reasons(out: Path) -> dict[str, str | None]:
    frame = read_manifest(out / "documents.parquet").collect()
    return {row["id"]: row["reason"] for row in frame.iter_rows(named=True) if row["split"] == "train"}


def test_what_holds_items_of_a_task_is_left_out(text, tmp_path):
    answer = sparsedial.select(text, out=tmp_path / "kept", tasks="squad", data=DATA)
    found = reasons(tmp_path / "kept")
    held = {name for name in found if name[:2] in ("07", "08")}
    assert held
    assert {name for name, reason in found.items() if reason == "contaminated"} == held
    (task,) = answer.contaminated
    assert (task.task, task.documents) == ("squad", len(held))
    assert 1 <= task.items <= task.judged
    (filtered,) = [one for one in answer.filters if one.name == "contaminated"]
    assert filtered.removed.documents == len(held)
    page = (tmp_path / "kept" / "examples.html").read_text()
    assert f'id="{filtered.examples.partition("#")[2]}"' in page


def test_it_can_be_told_alone(text, tmp_path, capsys):
    words = ["select", str(text), "--tasks", "squad", "--data", str(DATA), "--contaminated", "report"]
    assert main([*words, "--out", str(tmp_path / "kept")]) == 0
    assert "squad: " in capsys.readouterr().out
    assert "contaminated" not in reasons(tmp_path / "kept").values()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--contaminated", "report"), "--contaminated: is about items of tasks"),
        (("--tasks", "squat", "--data", str(DATA)), "squat"),
        (("--tasks", "squad", "--data", str(DATA), "--contaminated", "keep"), "'keep' is not known"),
    ],
)
def test_bad_input_is_one_line(text, tmp_path, capsys, words, says):
    assert main(["select", str(text), *words, "--out", str(tmp_path / "kept")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()
