"""Work in a process of its own, whatever started this one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from sparsedial.errors import UserError
from sparsedial.runs.alone import alone

SCORE = Path("/proc/self/oom_score_adj")


@pytest.mark.skipif(not SCORE.exists(), reason="Linux alone says which process goes first")
def test_it_does_not_run_its_users_script_again_and_goes_first_where_memory_runs_out(unguarded):
    assert alone(Path.read_text, SCORE) == "1000\n"


def test_a_process_that_is_killed_is_one_line(unguarded):
    with pytest.raises(UserError, match="was killed"):
        alone(signal.raise_signal, signal.SIGKILL)
