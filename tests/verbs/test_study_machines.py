"""What a study on several machines refuses, and what it leaves behind; a whole one is in `test_study.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import sparsedial
from sparsedial.errors import UserError
from sparsedial.records.launch import JOIN_FILE
from sparsedial.runs import devices
from sparsedial.store import LOCK
from sparsedial.sweep.notebook import Notebook
from sparsedial.verbs.study.machines import machines_of
from sparsedial.verbs.study.settings import StudySettings


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
