"""The whole study that several tests look at: it takes a minute or two."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.verbs.whole_study import PATIENCE, stamps, start, wait_for_runs


@pytest.fixture(scope="session")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A study that was stopped with Ctrl-C, killed, and then finished; its folder and what it printed.

    Beside it, in `anew`, is the same study, measured and laid, before its first run.
    """
    out = tmp_path_factory.mktemp("study") / "mine"
    first = start(corpus, out)
    wait_for_runs(out, 2, first)
    second = start(corpus, out)
    assert second.wait(PATIENCE) == 2
    assert "in use" in second.communicate()[1]
    first.send_signal(signal.SIGINT)
    assert first.wait(PATIENCE) == 130
    assert "Traceback" not in first.communicate()[1]
    shutil.copytree(out, out.parent / "anew", ignore=shutil.ignore_patterns("runs"))
    before = stamps(out)
    again = start(corpus, out)
    wait_for_runs(out, len(before) + 4, again)
    os.kill(again.pid, signal.SIGKILL)
    again.communicate()
    kept = stamps(out)
    assert before.items() <= kept.items()
    last = start(corpus, out, "--json")
    printed, errors = last.communicate(timeout=900)
    assert last.returncode == 0, errors
    assert kept.items() <= stamps(out).items(), "a finished run was done again"
    return out, json.loads(printed)
