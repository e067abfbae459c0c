"""A study on several machines, processes on this one with other names: it finds what one machine finds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sparsedial
from sparsedial.errors import UserError
from sparsedial.records.launch import JOIN_FILE
from sparsedial.records.study import Study, read_finished
from sparsedial.runs import devices
from sparsedial.sweep.notebook import Notebook
from sparsedial.verbs.study_machines import machines_of
from sparsedial.verbs.study_settings import StudySettings
from tests.verbs.whole_study import PATIENCE, start, wait_for_runs


def join(out: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sparsedial.cli.main", "join", str(out), "--workers", "1", "--name", name]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_door(out: Path, process: subprocess.Popen[str], before: str = "") -> str:
    """The file that lets workers in, once it is another one than before."""
    file = out / JOIN_FILE
    while not file.exists() or file.read_text() == before:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    return file.read_text()


def cells(study: Study) -> dict[tuple[float, int, int], float | None]:
    return {(row.budget_flops, row.experts, row.d_model): row.loss for row in study.cells_table}


@pytest.mark.slow
def test_a_study_whose_machines_come_and_go_finds_what_one_finds(finished, corpus: Path, tmp_path: Path):
    """Its first machine is killed, too, and then stopped with Ctrl-C; its workers end with it."""
    out, several = tmp_path / "mine", ("--workers", "1", "--on", "join")
    processes = [start(corpus, out, *several)]
    try:
        door = wait_for_door(out, processes[-1])
        processes += [join(out, "b"), join(out, "c")]
        wait_for_runs(out, 4, processes[0])
        os.kill(processes[0].pid, signal.SIGKILL)
        for worker in processes[1:]:
            assert worker.wait(PATIENCE) == 0, worker.communicate()[1]
        second = start(corpus, out, *several)
        processes.append(second)
        wait_for_door(out, second, door)
        processes.append(join(out, "d"))
        wait_for_runs(out, len(list(out.glob("runs/*/run.json"))) + 3, second)
        second.send_signal(signal.SIGINT)
        assert second.wait(PATIENCE) == 130
        assert "Traceback" not in second.communicate()[1]
        assert processes[-1].wait(PATIENCE) == 0, processes[-1].communicate()[1]
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
    assert {"b", "c"} & set(hosts)
    (here,) = (host for host in hosts.values() if host.profile_digest == study.frozen.profile_digest)
    assert sum(host.cells for host in hosts.values()) <= len(study.cells_table)
    assert here.cells > 0
    assert "All its machines: " in (out / "report.html").read_text()
    assert all(f"<td>{name}</td>" in (out / "report.html").read_text() for name in hosts)


def test_other_machines_train_on_their_processors(monkeypatch):
    monkeypatch.setattr("sparsedial.runs.devices.pick_device", lambda wanted: "cuda")
    monkeypatch.setattr(devices, "card_of", lambda device: None)
    with pytest.raises(UserError, match="other machines train on their CPUs"):
        StudySettings(on="join", batch=8, context=64).question()


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"on": "jion"}, "'jion' is not known"), ({"on": "join", "workers": 99999}, "would have to share")],
)
def test_what_cannot_be_asked_of_machines_is_one_line(tmp_path: Path, corpus: Path, settings, says):
    with pytest.raises(UserError, match=says):
        sparsedial.study(str(corpus), out=tmp_path / "out", **settings)


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
