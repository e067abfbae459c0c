"""The workers that a machine sends to a study: they may come before it begins, and say so where all of them died."""

from __future__ import annotations

import threading
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any, cast

import pytest

from sparsedial.errors import UserError
from sparsedial.records.launch import JOIN_FILE, Meeting
from sparsedial.records.record import write
from sparsedial.records.study import STUDY_FILE
from sparsedial.runs.machines import crew, joining
from sparsedial.runs.machines.joining import NotBegun, await_meeting
from tests.showing.synthetic import study_record

MEETING = Meeting(host="a", addresses=("a",), port=1, key="k")


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(joining, "LOOK_SECONDS", 0.005)


def test_workers_may_come_before_the_study_begins(tmp_path: Path):
    said, folder = list[str](), tmp_path / "mine"

    def begin() -> None:
        folder.mkdir()
        write(folder / JOIN_FILE, MEETING, private=True)

    thread = threading.Timer(0.1, begin)
    thread.start()
    assert await_meeting(folder, 60, said.append) == MEETING
    thread.join()
    assert said == [f"waiting for a study to begin in {folder}"]


def test_a_study_that_does_not_begin_is_waited_for_no_longer_than_asked(tmp_path: Path):
    for seconds in (0, 0.05):
        with pytest.raises(NotBegun, match="no study is running there"):
            await_meeting(tmp_path, seconds, print)


def test_a_study_that_has_ended_is_not_waited_for(tmp_path: Path):
    write(tmp_path / STUDY_FILE, study_record())
    with pytest.raises(UserError, match="its study has ended"):
        await_meeting(tmp_path, 3600, print)


class Hand:
    """A worker that says these reports and is gone then."""

    def __init__(self, *reports: object) -> None:
        self.pipe, theirs = Pipe()
        for report in reports:
            theirs.send(report)
        theirs.close()


@pytest.mark.parametrize(
    ("hands", "says"),
    [
        ([Hand()], "^1 worker of this machine died"),
        ([Hand(None), Hand(None)], "^all 2 workers of this machine died"),
    ],
)
def test_where_all_workers_died_the_command_fails(hands: Any, says):
    with pytest.raises(UserError, match=says):
        crew._heard(hands, [].append)


def test_the_runs_of_those_that_stayed_are_counted():
    said, hands = list[str](), [Hand(None, 3), Hand(None), Hand(None, 2)]
    assert crew._heard(cast("Any", hands), said.append) == 5
    assert "a worker died: another one trains what it had" in said
