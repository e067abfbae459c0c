"""What a study tells while it runs."""

from __future__ import annotations

import io
from types import SimpleNamespace

from sparsedial.showing.progress import PLAIN_SECONDS, Progress
from sparsedial.sweep.study import Diary, StudyFile
from sparsedial.verbs.listening import StudyListener
from tests.showing.test_progress import Clock
from tests.sweep.test_study import Hand

TASK = SimpleNamespace(
    label="dense", job=SimpleNamespace(hash="a", recipe=SimpleNamespace(steps=10, batch=1, context=8))
)


def said(elapsed_before: float, elapsed: float, tmp_path) -> str:
    stream, clock, hand = io.StringIO(), Clock(), Hand(elapsed_before)
    with Progress(stream, clock=clock) as progress:
        listener = StudyListener(progress)
        listener.plan(180.0, Diary(StudyFile(tmp_path), hand), 4.0)
        hand.now = elapsed
        for clock.now in (0.0, PLAIN_SECONDS):
            listener.cell(TASK, {"step": 1, "loss": 2.0, "seconds": 0.0})  # type: ignore[arg-type]
    return stream.getvalue()


def test_an_overrun_is_said_as_long_as_it_is(tmp_path):
    assert "[100%, 20 s longer than expected]" in said(0.0, 200.0, tmp_path)


def test_what_an_earlier_start_finished_is_not_left_again(tmp_path):
    assert "[75%, 45 s left]" in said(120.0, 135.0, tmp_path)
