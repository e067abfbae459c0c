"""What a study refuses in one clear line before it measures, and a dry run that leaves its folder free."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparsedial.cli.main import main
from sparsedial.machine.hardware import usable_cores
from sparsedial.sweep import local_lab
from sparsedial.sweep.budgets import PROBE_SECONDS
from sparsedial.units import human_seconds
from tests.machine.test_profile import profile_of


@pytest.fixture(scope="module")
def out(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose text is ready, as a study that was stopped leaves it."""
    from sparsedial.store import lock
    from sparsedial.text.prepare import prepare

    folder = tmp_path_factory.mktemp("study")
    with lock(folder):
        prepare([str(corpus)], tokenizer="bytes", folder=folder / "text")
    return folder


@pytest.fixture(autouse=True)
def profiled(monkeypatch) -> None:
    """No test measures the machine."""
    monkeypatch.setattr(local_lab, "measure_on", lambda *_: lambda *_: profile_of(0.0))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--max-total-parameters", "20k", "--time", "3m"], ["20k is too small for three sizes", "give 127k or more"]),
        (["--max-total-parameters", "10"], ["give 127k or more"]),
        (["--memory", "800.1MB", "--workers", "1"], ["--memory: 800 MB is too small", "give 806 MB or more"]),
        (["--memory", "1MB", "--workers", "1"], ["give 806 MB or more"]),
        (["--top-k", "-1"], ["--top-k: -1 is too small"]),
        (["--top-k", "0"], ["--top-k: 0 is too small"]),
        (["--shared-experts", "-2"], ["--shared-experts: -2"]),
        (["--top-k", "4"], ["top_k=4 + shared_experts=1 does not divide", "1, 2, 3, 4, 6 or 12"]),
        (["--context", "4096", "--time", "3m"], ["3 min 00 s is too short", "shorter --context"]),
        (["--context", "100000000"], ["context of 100000000"]),
        (["--context", "100000000", "--budgets", "1e11,3e11"], ["allow no size", "shorter --context"]),
        (["--cell-seeds", "1000000"], ["too short", "fewer seeds"]),
        (["--seeds", "1000000"], ["too short", "fewer seeds"]),
        (["--time", "59s"], ["59 s is too short for any grid"]),
        (["--probes", "80%"], ["--probes: 0.8 is not a share above 0 and at most 0.5", "like 8% or 0.08"]),
        (["--probes", "-8%"], ["--probes: -8% is not a positive number", "8% or 0.08"]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_measuring(corpus, out, monkeypatch, capsys, words, says):
    monkeypatch.setattr(local_lab, "measure_on", lambda *_: lambda *_: pytest.fail("it measured"))
    workers = [] if "--workers" in words else ["--workers", "1"]
    assert main(["study", str(corpus), *words, *workers, "--device", "cpu", "--out", str(out), "--dry-run"]) == 2
    told = capsys.readouterr().err
    assert all(part in told for part in says), told
    assert len([line for line in told.splitlines() if line.startswith(("error: ", "hint: "))]) <= 2


@pytest.mark.parametrize("words", [["--max-total-parameters", "127k"], ["--memory", "806MB", "--workers", "1"]])
def test_the_least_that_an_error_names_is_enough(corpus, out, words):
    assert main(["study", str(corpus), *words, "--time", "1d", "--device", "cpu", "--out", str(out), "--dry-run"]) == 0


def test_a_dry_run_says_how_long_the_probes_take(corpus, tmp_path, capsys):
    words = ["study", str(corpus), "--time", "60m", "--device", "cpu", "--out", str(tmp_path), "--dry-run"]
    assert main(words) == 0
    assert "probes" not in capsys.readouterr().out
    assert main([*words, "--probes", "8%", "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)
    assert cost["probe_seconds"] >= cost["cells"] * PROBE_SECONDS / usable_cores()
    assert cost["probe_seconds"] < cost["seconds"] / 10
    assert main([*words, "--probes", "8%"]) == 0
    assert f", of which probes take {human_seconds(cost['probe_seconds'])}" in capsys.readouterr().out


def test_a_dry_run_binds_no_folder_and_says_from_when_to_when(corpus, out, capsys):
    for minutes in ("60m", "90m"):
        words = ["study", str(corpus), "--time", minutes, "--device", "cpu", "--out", str(out), "--dry-run"]
        assert main(words) == 0
        assert " to " in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("time"))
    assert main(["study", "--status", "--out", str(out)]) == 2
    assert "holds no study" in capsys.readouterr().err
    assert not (out / "profile.json").exists()
