"""What a study says while it runs."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from sparsedial.machine.energy import CountingMeter, StatedPower
from sparsedial.runs import clock as runs_clock
from sparsedial.runs.executor import Moved
from sparsedial.showing.progress import PLAIN_SECONDS, Progress
from sparsedial.verbs.listening import RunListener, StudyListener
from tests.showing.test_progress import Clock

TASK = SimpleNamespace(
    label="dense", job=SimpleNamespace(hash="a", recipe=SimpleNamespace(steps=10, batch=1, context=8))
)


def said(elapsed_before: float, elapsed: float) -> str:
    stream, clock, now = io.StringIO(), Clock(), [0.0]
    spent = runs_clock.Clock(600.0, elapsed_before, now=lambda: now[0])
    with Progress(stream, clock=clock) as progress:
        listener = StudyListener(progress)
        listener.plan(180.0, spent, StatedPower(watts=4.0, source="stated"))
        now[0] = elapsed - elapsed_before
        for clock.now in (0.0, PLAIN_SECONDS):
            listener.moved(Moved(task=TASK, step=1, loss=2.0, steps_per_second=0.0))  # type: ignore[arg-type]
    return stream.getvalue()


def test_an_overrun_is_said_as_long_as_it_is():
    assert "[100%, 20 s longer than expected]" in said(0.0, 200.0)


def test_what_an_earlier_start_finished_is_not_left_again():
    assert "[75%, 45 s left]" in said(120.0, 135.0)


def test_no_energy_is_shown_before_a_meter_was_read():
    clock, counted = [0.0], [0.0]
    stream, shown = io.StringIO(), Clock()
    with pytest.MonkeyPatch.context() as patched, Progress(stream, clock=shown) as progress:
        patched.setattr("time.monotonic", lambda: clock[0])
        listener = RunListener(progress, CountingMeter("a counter", lambda: [counted[0]], [1e9]))
        for seconds in (0.0, 10.0):
            clock[0], counted[0], shown.now = seconds, 16.0 * seconds, PLAIN_SECONDS * (1 + seconds)
            listener.moved(Moved(task=TASK, step=1, loss=2.0, steps_per_second=2.0))  # type: ignore[arg-type]
    before, after = stream.getvalue().splitlines()
    assert "/token" not in before
    assert after.endswith("1 J/token")  # 16 W at 16 tokens a second


def test_behind_the_last_step_it_is_said_that_a_run_is_scored():
    """Scoring reports as further last steps, which took no time that could be left, and have no rate."""
    stream, clock = io.StringIO(), Clock()
    with Progress(stream, clock=clock) as progress:
        listener = RunListener(progress, StatedPower(watts=4.0, source="stated"))  # type: ignore[arg-type]
        for number, step in enumerate((8, 9, 9, 9)):
            clock.now = PLAIN_SECONDS * (1 + number)
            listener.moved(Moved(task=TASK, step=step, loss=2.0, steps_per_second=1.0))  # type: ignore[arg-type]
    lines = stream.getvalue().splitlines()
    assert lines[-1] == "dense: scoring held-out text"
    assert sum("step 10/10" in line for line in lines) <= 1
