"""What tests of several commands look at: a whole study, of a minute or two; a text; short measurements."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from sparsedial.pruning import speed
from tests.pruning.planted import FIRST, SECOND, text_of
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


@pytest.fixture
def quick(monkeypatch):
    """A checkpoint's speed is measured in a moment, and its memory is not."""
    monkeypatch.setattr(speed, "ROUNDS", 2)
    monkeypatch.setattr(speed, "ROUND_SECONDS", 0.0)
    monkeypatch.setattr(speed, "ENERGY_SECONDS", 0.0)
    monkeypatch.setattr(speed, "peak_memory", lambda place, threads: 3 * 10**8)


@pytest.fixture
def text(tmp_path: Path) -> str:
    """A text of two domains."""
    return str(text_of(tmp_path / "both.txt", FIRST, SECOND))
