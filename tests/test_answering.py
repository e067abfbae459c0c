"""Programs of the benchmarks that answer lines: what they say, how they end, and that they can be stopped."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from benchmarks.answering import Answering, Ended

DOUBLES = """
import json, sys
print(json.dumps({"version": "1"}), flush=True)
for line in sys.stdin:
    number = json.loads(line)["number"]
    if number < 0:
        sys.exit("below zero")
    print(json.dumps({"double": 2 * number}), flush=True)
"""


def test_a_program_says_what_it_is_and_answers_each_line():
    with Answering([sys.executable, "-c", DOUBLES]) as program:
        assert program.about == {"version": "1"}
        assert [program.ask({"number": number})["double"] for number in (3, 5)] == [6, 10]


def test_one_that_ends_instead_of_answering_leaves_its_status_and_its_log(tmp_path: Path):
    log, ended = tmp_path / "log", pytest.raises(Ended, match="status 1")
    with Answering([sys.executable, "-c", DOUBLES], log=log) as program, ended:
        program.ask({"number": -1})
    assert log.read_text() == "below zero\n"


def stopped(pid: int, seconds: float = 5) -> bool:
    """Whether a child was stopped, soon."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="the system has no waitid")
def test_one_that_may_go_on_answers_and_is_stopped_afterwards():
    with Answering([sys.executable, "-c", DOUBLES]) as program:
        for number in (3, 5):
            with program.going():
                assert program.ask({"number": number})["double"] == 2 * number
            assert stopped(program.pid)
