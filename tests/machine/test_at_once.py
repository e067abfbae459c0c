"""Several runs at once on a device whose streams are made up, and by the function that a GPU captures."""

from __future__ import annotations

import pytest

from sparsedial.machine.at_once import measure_at_once, times_one
from sparsedial.records.profile import AtOnceTiming
from sparsedial.runs import measuring
from sparsedial.runs.measuring import measure_on
from sparsedial.shape.ladder import Ladder

LADDER = Ladder(vocab_size=64, context=16)
SMALL, LARGE = LADDER.shape(16, 0), LADDER.shape(64, 8)
STEP_SECONDS = {SMALL: 1e-3, LARGE: 16e-3}
STREAMS = {SMALL: 4.0, LARGE: 1.5}  # runs whose steps the device works on at once


class Device:
    """Works on the steps of all runs at once, as far as its streams go; its clock stands still but for that."""

    def __init__(self) -> None:
        self.seconds, self.given = 0.0, list[float]()

    def now(self) -> float:
        return self.seconds


class Run:
    def __init__(self, device: Device, shape) -> None:
        self.device, self.shape = device, shape

    def take(self, indices: range) -> None:
        assert min(indices) == 100
        self.device.given.append(len(indices) * STEP_SECONDS[self.shape])

    def read(self) -> None:
        """The first reading waits for all."""
        given, self.device.given = self.device.given, []
        self.device.seconds += max(max(given), sum(given) / STREAMS[self.shape]) if given else 0.0


@pytest.fixture
def device(monkeypatch) -> Device:
    made = Device()
    monkeypatch.setattr("time.perf_counter", made.now)
    return made


def test_what_a_device_works_on_at_once_is_found(device):
    def make(shape, most):
        return [Run(device, shape) for _ in range(most if shape == SMALL else 4)]  # no room for more of the large one

    rows = measure_at_once(make, [SMALL, LARGE], (1, 2, 4, 8), first=100, seconds=1.0)
    found = {(row.d_model, row.experts, row.runs): row.times_one for row in rows}
    small, large = {1: 1.0, 2: 2.0, 4: 4.0, 8: 4.0}, {1: 1.0, 2: 1.5, 4: 1.5}
    assert found == pytest.approx(
        {
            **{(16, 0, runs): gain for runs, gain in small.items()},
            **{(64, 8, runs): gain for runs, gain in large.items()},
        }
    )
    assert sorted({row.step_seconds for row in rows}) == pytest.approx([1e-3, 16e-3])
    assert sorted({row.start_seconds for row in rows}) == pytest.approx([5e-3 / 4, 5 * 16e-3 / 1.5])  # five steps each
    assert device.seconds < 3.0  # no chunk is so long that the measurement takes far more than its time


def test_steps_that_are_not_given_ahead_are_not_timed():
    assert measure_at_once(lambda *_: [], [SMALL], (2, 4), first=0, seconds=1.0) == ()


def test_between_measurements_the_gain_is_between_theirs_and_beyond_them_it_stays():
    rows = [
        AtOnceTiming(d_model=1, experts=0, step_seconds=step, start_seconds=0.0, runs=runs, times_one=gain)
        for step, runs, gain in ((1e-3, 2, 2.0), (1e-3, 8, 5.0), (16e-3, 2, 1.2), (16e-3, 8, 1.4))
    ]
    assert [times_one(rows, runs, 1e-3) for runs in (1, 2, 5, 8, 16)] == pytest.approx([1, 2, 3.5, 5, 5])
    assert [times_one(rows, 8, step) for step in (1e-4, 4e-3, 16e-3, 1.0)] == pytest.approx([5, 3.2, 1.4, 1.4])
    assert times_one((), 8, 1e-3) == 1.0


def test_runs_of_the_function_that_a_gpu_captures_are_timed_in_one_process():
    shapes = [LADDER.shape(12, 0), LADDER.shape(24, 4)]
    profile = measure_on("cpu", 1, lambda *_: None, at_once=(2, 3))(shapes, 2, 16, 0.2)
    assert [(row.d_model, row.runs) for row in profile.at_once] == [(12, 2), (12, 3), (24, 2), (24, 3)]
    assert all(0.3 < row.times_one < 2.0 for row in profile.at_once)  # a CPU takes one after the other


def test_kernels_are_compiled_before_anything_is_timed(monkeypatch):
    order = []
    monkeypatch.setattr(measuring, "compile_ahead", lambda _, recipe, *__: order.append(recipe.batch))
    monkeypatch.setattr(measuring, "measure_profile", lambda *_, **__: order.append("timed"))
    measure_on("cpu", 1, lambda *_: None)([Ladder(vocab_size=256, context=16).shape(12, 0)], 2, 16, 0.1)
    assert order == [2, "timed"]
