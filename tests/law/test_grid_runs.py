"""Of a study's runs a fit takes those of its grid, finished or not, and says what the others were for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from sparsedial.errors import UserError
from sparsedial.law.grid_runs import CELL, RATES, TRIALS, _purpose
from sparsedial.law.runs import Reading, read_runs
from sparsedial.law.table import read_table
from sparsedial.records.record import write
from sparsedial.records.run import Run
from sparsedial.records.study import RunningStudy
from sparsedial.sweep.driver import conduct
from tests.sweep.simulation import LAW, Known, asked, bench, whole


def conducted() -> tuple[RunningStudy, Sequence[Run], set[str]]:
    """A simulated study of all phases with its runs, and the names of those that its cells began with."""
    made, findings = whole()
    assert made.notebook.study is not None
    runs = list(made.executor._runs.values())  # pyright: ignore[reportPrivateUsage]
    return made.notebook.study, runs, {result.run.hash for result in findings.cells.values()}


def folder_of(folder: Path, study: RunningStudy, runs: Sequence[Run]) -> Path:
    """The runs of a study, beside it."""
    write(folder / "study.json", study)
    for run in runs:
        write(folder / "runs" / run.hash[:16] / "run.json", run)
    return folder / "runs"


def test_the_runs_folder_of_a_study_gives_its_grid_and_a_note_on_the_others(tmp_path):
    study, runs, cells = conducted()
    folder = folder_of(tmp_path, study, runs)
    table = read_table(folder, {})
    grid = {run.hash for run in runs if _purpose(study, run) == CELL}
    assert cells <= grid
    of_cells = {(run.shape, run.tokens, run.recipe.learning_rate) for run in runs if run.hash in cells}
    assert {(run.shape, run.tokens, run.recipe.learning_rate) for run in runs if run.hash in grid} == of_cells
    assert len(table["loss"]) == len(grid) < len(runs)
    (note,) = (
        note for note in read_runs(Reading(path=folder, columns={}), ["chinchilla_sparsity"]).notes if "grid" in note
    )
    assert f"{len(runs) - len(grid)} are no cells of its grid and are left out" in note
    for purpose in ("of learning rates", "of timing", "of verdicts"):
        assert purpose in note


def test_a_study_that_only_scanned_has_no_grid_yet(tmp_path):
    study, runs, _ = conducted()
    scanning = replace(study, learning_rates=None)
    with pytest.raises(UserError, match="none of its runs is a finished cell"):
        read_table(folder_of(tmp_path, scanning, [run for run in runs if run.recipe.seed == 0]), {})


def test_runs_on_a_share_of_the_text_are_no_cells(tmp_path):
    study, runs, cells = conducted()
    cell = next(run for run in runs if run.hash in cells)
    share = replace(cell, text_digest="a share", hash="0" * 64)
    assert len(read_table(folder_of(tmp_path, study, [cell, share]), {})["loss"]) == 1


def test_runs_by_another_optimizer_are_no_cells():
    made = bench(question=asked(time=1500.0, optimizers=("adamw", "muon")))
    conduct(made.lab, made.notebook, laws=Known(LAW))
    study, runs = made.notebook.study, list(made.executor._runs.values())
    (muon,) = study.other_learning_rates
    cell = next(run for run in runs if _purpose(study, run) == CELL)
    assert {run.optimizer for run in runs if _purpose(study, run) == CELL} == {"adamw"}
    rate = muon.model.at(cell.shape, cell.tokens)
    recipe = dataclasses.replace(cell.recipe, optimizer="muon", learning_rate=rate)
    assert _purpose(study, replace(cell, recipe=recipe)) == TRIALS
    scanned = [run for run in runs if run.optimizer == "muon" and _purpose(study, run) == RATES]
    assert len(scanned) == sum(len(scan.points) for scan in muon.scans)


def test_runs_without_a_study_beside_them_are_all_taken(tmp_path):
    _, runs, _ = conducted()
    for run in runs:
        write(tmp_path / "runs" / run.hash[:16] / "run.json", run)
    assert len(read_table(tmp_path / "runs", {})["row"]) == sum(run.finished for run in runs)


def test_a_model_that_was_trained_in_the_folder_of_a_study_is_no_run_of_it(tmp_path):
    study, runs, _ = conducted()
    write(tmp_path / "study.json", study)
    for folder in (tmp_path / "model", tmp_path / "model" / "runs"):
        write(tmp_path / "model" / "runs" / "a" / "run.json", replace(runs[0], validation_loss=2.0))
        assert len(read_table(folder, {})["loss"]) == 1
