"""A whole study with probes, stopped and taken up again: its record, its report and its runs hold their scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparsedial.cli.main import main
from sparsedial.records.record import read
from sparsedial.records.run import Run
from sparsedial.records.study import Study
from tests.records.held import of_file
from tests.verbs.whole_study import SIZES

pytestmark = pytest.mark.slow


def test_a_study_with_probes_scores_every_cell(finished):
    out, printed = finished
    study = of_file(out / "study.json", Study)
    assert study.probes is not None
    assert study.frozen.inputs.probes == study.probes.share == printed["probes"]["share"] == 0.08
    assert {cell.run for cell in study.probes.cells} == {row.hash for row in study.cells_table}
    for cell in study.probes.cells:
        run = read(out / "runs" / cell.run[:16] / "run.json", Run)
        assert (run.probes, run.validation_loss, run.sparsity.experts) == (cell.probes, cell.loss, cell.sparsity)
        assert {"sums_1_digit_seen", "sums_1_digit_kept_out"} <= set(cell.probes["arithmetic"])
        assert list(cell.probes["reading"]) == ["code_of_two_letters"]  # longer passages do not fit a context of 16


def test_its_report_says_what_the_probes_found(finished):
    out, printed = finished
    study = read(out / "study.json", Study)
    assert study.probes is not None
    page = (out / "report.html").read_text()
    assert "Arithmetic, facts and reading" in page
    assert (out / "figures" / "probes.png").exists()
    assert study.probes.facts_at_equal_loss.sentence.split(",")[0] in page
    assert "--probes 0.08" in printed["next"]


def test_a_study_without_probes_is_another_one(finished, corpus: Path, capsys):
    out, printed = finished
    words = ["study", str(corpus), *SIZES, "--out", str(out), "--json"]
    assert main(words) == 0  # a finished study only prints
    assert json.loads(capsys.readouterr().out) == printed
    assert main([word for word in words if word not in ("--probes", "8%")]) == 2
    assert "holds a study with probes=0.08, not no probes" in capsys.readouterr().err
