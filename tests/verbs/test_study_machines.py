"""A study on several machines, processes on this one with other names: it finds what one machine finds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sparsedial
from sparsedial.errors import UserError
from sparsedial.records.launch import JOIN_FILE
from sparsedial.records.study import RunningStudy, Study, read_finished, read_study
from sparsedial.runs import devices
from sparsedial.runs.machines import NAME_DIGITS
from sparsedial.store import LOCK
from sparsedial.sweep.notebook import Notebook
from sparsedial.verbs.study_machines import machines_of
from sparsedial.verbs.study_settings import StudySettings
from tests.started import joining
from tests.verbs.whole_study import PATIENCE, start


def wait_for_door(out: Path, process: subprocess.Popen[str], before: str = "") -> str:
    """The file that lets workers in, once it is another one than before."""
    file = out / JOIN_FILE
    while not file.exists() or file.read_text() == before:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    return file.read_text()


def cells(study: Study) -> dict[tuple[float, int, int], float | None]:
    return {(row.budget_flops, row.experts, row.d_model): row.loss for row in study.cells_table}


def without_cells(finished: Path, out: Path) -> None:
    """A finished study as it was before its last start, without the runs of its smallest budget's cells."""
    cells_table = read_finished(finished / "study.json").cells_table
    least = min(row.budget_flops for row in cells_table)
    lacking = [row.hash[:NAME_DIGITS] for row in cells_table if row.budget_flops == least]
    shutil.copytree(finished.parent / "anew", out, ignore=shutil.ignore_patterns("runs"))
    shutil.copytree(finished / "runs", out / "runs", ignore=shutil.ignore_patterns(*lacking))


def wait_for_host(out: Path, name: str, process: subprocess.Popen[str]) -> None:
    """Until a study has written down that a machine of this name trained a run."""
    while True:
        study = read_study(out / "study.json")
        launch = study.launch if isinstance(study, RunningStudy) else None
        if launch is not None and name in {host.name for host in launch.hosts}:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.2)


@pytest.mark.slow
def test_a_study_whose_machines_come_and_go_finds_what_one_finds(finished, corpus: Path, tmp_path: Path):
    """Its first machine is killed, too, and its worker ends with it; then it is stopped with Ctrl-C."""
    out, several = tmp_path / "mine", ("--workers", "1", "--on", "join")
    without_cells(finished[0], out)
    processes = [start(corpus, out, *several)]
    try:
        door = wait_for_door(out, processes[0])
        worker = joining(out, "b")
        processes.append(worker)
        wait_for_host(out, "b", processes[0])
        os.kill(processes[0].pid, signal.SIGKILL)
        assert worker.wait(PATIENCE) == 0, worker.communicate()[1]
        second = start(corpus, out, *several)
        processes.append(second)
        wait_for_door(out, second, door)
        second.send_signal(signal.SIGINT)
        assert second.wait(PATIENCE) == 130
        assert "Traceback" not in second.communicate()[1]
        assert not (out / JOIN_FILE).exists()
        last = start(corpus, out)
        processes.append(last)
        _, errors = last.communicate(timeout=900)
        assert last.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    study = read_finished(out / "study.json")
    assert cells(study) == cells(read_finished(finished[0] / "study.json"))
    assert study.launch is not None
    assert study.launch.kind == "local"
    hosts = {host.name: host for host in study.launch.hosts}
    assert hosts["b"].cells > 0
    assert [host.name for host in hosts.values() if host.profile_digest == study.frozen.profile_digest] != ["b"]
    assert "All its machines: " in (out / "report.html").read_text()
    assert all(f"<td>{name}</td>" in (out / "report.html").read_text() for name in hosts)


def test_other_machines_train_on_their_processors(monkeypatch):
    monkeypatch.setattr("sparsedial.runs.devices.pick_device", lambda wanted: "cuda")
    monkeypatch.setattr(devices, "card_of", lambda device: None)
    with pytest.raises(UserError, match="other machines train on their CPUs"):
        StudySettings(on="join", batch=8, context=64).question()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"on": "jion"}, "'jion' is not known"),
        ({"on": "join", "workers": 99999}, "would have to share"),
        ({"wait_for": 2}, "nobody joins this study"),
        ({"on": "join", "wait_for": -1}, "-1 is negative"),
        ({"on": "slurm"}, "there is no Slurm allocation here"),
        ({"on": "ray"}, "Ray is not installed"),
    ],
)
def test_what_cannot_be_asked_of_machines_is_one_line(tmp_path: Path, corpus: Path, monkeypatch, settings, says):
    """Before anything is done or written."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=says):
        sparsedial.study(str(corpus), out=tmp_path / "out", **settings)
    assert {path.name for path in tmp_path.glob("out/*")} <= {LOCK}


@pytest.mark.parametrize(
    ("settings", "says"),
    [({}, "no such folder on this machine"), ({"workers": 0}, "outside 1.."), ({"name": " "}, "an empty name")],
)
def test_what_cannot_join_is_one_line(tmp_path: Path, settings, says):
    with pytest.raises(UserError, match=says):
        sparsedial.join(tmp_path / "nowhere", **settings)


def test_a_dry_run_lets_nobody_in(tmp_path: Path):
    settings = StudySettings(on="join", dry_run=True, out=tmp_path)
    with machines_of(settings, Notebook(None), print) as machines:
        assert machines.site is None
        assert machines.elsewhere() == 0
    assert not (tmp_path / JOIN_FILE).exists()


def test_one_machine_alone_removes_the_key_of_a_study_that_was_killed(tmp_path: Path):
    (tmp_path / JOIN_FILE).write_text("{}")
    with machines_of(StudySettings(out=tmp_path), Notebook(None), print) as machines:
        assert machines.site is None
    assert not (tmp_path / JOIN_FILE).exists()
