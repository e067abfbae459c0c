"""A recovery that is stopped in the middle of its training and asked for again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from sparsedial.runs import in_process
from sparsedial.verbs.listening import RunListener

T = TypeVar("T")
STOPPED_AT = 140  # steps of 150; the state was saved at 64 or later


def left_beside(checkpoint: Path) -> list[str]:
    """The hidden files and folders beside a checkpoint."""
    return [path.name for path in checkpoint.parent.iterdir() if path.name.startswith(".")]


def stopped_and_asked_again(monkeypatch: pytest.MonkeyPatch, ask: Callable[[], T], checkpoint: Path, out: str) -> T:
    """What the second asking gives, which went on from the state that the first one had saved.

    `out` is the name of the folder that is written beside the checkpoint.
    """
    monkeypatch.setattr(in_process, "WAIT_SECONDS", 0.0)
    seen, moved = [], RunListener.moved

    def stopping(self, event):
        seen.append(event.step)
        if event.step == STOPPED_AT:
            raise KeyboardInterrupt
        moved(self, event)

    monkeypatch.setattr(RunListener, "moved", stopping)
    with pytest.raises(KeyboardInterrupt):
        ask()
    assert not (checkpoint.parent / out).exists()
    assert sorted(left_beside(checkpoint)) == [f".{out}.recovery", f".{out}.unfinished"]
    monkeypatch.setattr(RunListener, "moved", lambda self, event: seen.append(event.step) or moved(self, event))
    seen.clear()
    again = ask()
    assert 64 <= seen[0] < STOPPED_AT, "from its last saved state"
    assert left_beside(checkpoint) == []
    return again
