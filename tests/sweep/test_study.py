"""A study's file: what it is bound to, what it has spent over its starts, and whether it lives."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sparsedial.errors import UserError
from sparsedial.store import lock
from sparsedial.sweep.grid import Cell, lay
from sparsedial.sweep.phases import Clock
from sparsedial.sweep.study import Diary, StudyFile, layout_record, status
from tests.sweep.test_grid import DRAFT, replace

LAID = replace(DRAFT, cells=lay(DRAFT))


class Hand(Clock):
    """A clock that is moved by hand."""

    def __init__(self, elapsed_seconds: float) -> None:
        super().__init__(600.0)
        self.now = elapsed_seconds

    @property
    def elapsed(self) -> float:
        return self.now


def laid(out: Path, **inputs) -> StudyFile:
    file = StudyFile(out)
    if file.record["frozen"] is None:
        file.keep(frozen={"inputs": inputs, "layout": layout_record(LAID)})
    return file


def spent(out: Path) -> dict[str, float]:
    return {row["name"]: row["seconds"] for row in StudyFile(out).record["phases"]}


def test_what_a_phase_took_is_kept_over_starts_however_they_end(tmp_path: Path):
    clock = Hand(0.0)
    diary = Diary(laid(tmp_path), clock)
    clock.now = 10.0
    diary.enter("learning rates")
    clock.now = 14.0
    diary.beat()  # too early to write
    clock.now = 16.0
    diary.beat()
    clock.now = 19.0  # killed here: three seconds are lost
    assert spent(tmp_path) == {"set-up": 10.0, "learning rates": 6.0}
    file = StudyFile(tmp_path)
    assert file.elapsed_seconds == 16.0
    clock = Hand(file.elapsed_seconds)
    again = Diary(file, clock)
    clock.now = 18.0
    again.enter("learning rates")
    clock.now = 25.0
    again.enter("report")
    assert spent(tmp_path) == {"set-up": 12.0, "learning rates": 13.0}
    assert StudyFile(tmp_path).elapsed_seconds == 25.0


def test_nothing_is_written_before_a_study_is_laid(tmp_path: Path):
    clock = Hand(0.0)
    diary = Diary(StudyFile(tmp_path), clock)
    clock.now = 100.0
    diary.enter("learning rates")
    assert not (tmp_path / "study.json").exists()


def test_status_parts_cells_from_other_runs_and_knows_who_lives(tmp_path: Path):
    clock = Hand(0.0)
    file = laid(tmp_path)
    diary = Diary(file, clock)
    diary.enter("learning rates")
    for _ in range(14):
        diary.ran()
    clock.now = 20.0
    diary.enter("grid")
    diary.cells = {Cell(d_model=12, experts=0, budget_flops=budget): {"status": "finished"} for budget in (1e11, 3e11)}
    diary.ran()
    diary.ran()
    clock.now = 30.0
    diary.write()
    os.utime(file.path, times=(time.time() - 60, time.time() - 60))
    told = status(tmp_path)
    assert (told["status"], told["phase"]) == ("stopped", "grid")
    assert (told["cells_planned"], told["cells_finished"], told["cells_diverged"]) == (24, 2, 0)
    assert [row["runs"] for row in told["phases"]] == [0, 14, 2]
    assert told["written_seconds_ago"] == pytest.approx(60, abs=10)
    assert told["elapsed_seconds"] == 30.0
    with lock(tmp_path):
        living = status(tmp_path)
    assert living["status"] == "running"
    assert living["elapsed_seconds"] == pytest.approx(90, abs=10)
    file.keep(status="done")
    assert status(tmp_path)["status"] == "done"


@pytest.mark.parametrize(
    ("held", "given", "says"),
    [
        ({"time": 600.0}, {"time": 180.0}, "with --time 10m, and this command has --time 3m"),
        ({"time": 8.64e103}, {"time": 180.0}, "with --time 1e+99d, and"),
        ({"max_total_parameters": None}, {"max_total_parameters": 2e4}, "with no --max-total-parameters, and"),
        ({"sparsities": [0.0, 0.75]}, {"sparsities": [0.0, 0.875]}, "--sparsities 0,0.75, and"),
        ({"text": "ab12"}, {"text": "cd34"}, "of another text"),
    ],
)  # fmt: skip
def test_what_differs_is_said_in_the_words_of_the_command_line(tmp_path: Path, held, given, says):
    with pytest.raises(UserError) as error:
        laid(tmp_path, **held).frozen_for(given)
    assert says in error.value.problem
