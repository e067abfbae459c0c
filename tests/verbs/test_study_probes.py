"""A whole study with probes at a reduced size: its record, its report and its runs hold their scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparsedial.cli.main import main
from sparsedial.records.record import read
from sparsedial.records.run import Run
from sparsedial.records.study import Study
from sparsedial.sweep import local_lab
from tests.machine.test_profile import profile_of
from tests.records.held import of_file

pytestmark = pytest.mark.slow

SIZES = ["--budgets", "3.5e9,7e9", "--sparsities", "0,0.75", "--context", "16", "--batch", "4", "--seeds", "2"]


def test_a_study_with_probes_scores_every_cell_and_reports_it(corpus: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(local_lab, "measure_on", lambda *_: lambda *_: profile_of(0.0))
    out = tmp_path / "study"
    words = ["study", str(corpus), *SIZES, "--probes", "8%", "--device", "cpu", "--out", str(out), "--json"]
    assert main(words) == 0
    printed = json.loads(capsys.readouterr().out)
    study = of_file(out / "study.json", Study)
    assert study.probes is not None
    assert study.frozen.inputs.probes == study.probes.share == printed["probes"]["share"] == 0.08
    assert {cell.run for cell in study.probes.cells} == {row.hash for row in study.cells_table}
    for cell in study.probes.cells:
        run = read(out / "runs" / cell.run[:16] / "run.json", Run)
        assert (run.probes, run.validation_loss, run.sparsity.experts) == (cell.probes, cell.loss, cell.sparsity)
        assert {"sums_1_digit_seen", "sums_1_digit_kept_out"} <= set(cell.probes["arithmetic"])
        assert list(cell.probes["reading"]) == ["code_of_two_letters"]  # longer passages do not fit a context of 16
    page = (out / "report.html").read_text()
    assert "Arithmetic, facts and reading" in page
    assert (out / "figures" / "probes.png").exists()
    assert study.probes.facts_at_equal_loss.sentence.split(",")[0] in page
    assert "--probes 0.08" in printed["next"]
    assert main(words) == 0  # a finished study only prints
    assert json.loads(capsys.readouterr().out) == printed
    assert main([word for word in words if word not in ("--probes", "8%")]) == 2
    assert "holds a study with probes=0.08, not no probes" in capsys.readouterr().err
