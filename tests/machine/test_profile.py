"""The profile recovers a machine that was made up, and says how far off it is."""

from __future__ import annotations

import time

import numpy as np
import pytest

from sparsedial.machine.energy import CountingMeter, StatedPower
from sparsedial.machine.hardware import describe, usable_cores
from sparsedial.machine.profile import FEATURES, Profile, features, fit_steps, measure_profile, read_profile
from sparsedial.machine.timing import measure_in_turn
from sparsedial.records.quantities import Machine
from sparsedial.records.record import write
from sparsedial.shape.ladder import Ladder

LADDER = Ladder(vocab_size=256, context=64)
SHAPES = [LADDER.shape(width, experts) for width in (16, 24, 32, 48, 64, 96) for experts in (0, 8, 32)]
TRUTH = {
    "step": 2e-3,
    "layers": 5e-4,
    "sparse_layers": 1e-3,
    "dense_flops": 2e-11,
    "expert_flops": 4e-11,
    "parameters": 1e-9,
}


MACHINE = Machine(processor="AMD EPYC 7713", cores=2, memory_bytes=24 << 30, system="Linux", python="3.11.7", gpus=())


def seconds_of(shape, batch=8, context=64) -> float:
    values = features(shape, batch, context)
    return sum(coefficient * values[name] for name, coefficient in TRUTH.items())


def profile_of(noise: float) -> Profile:
    random = np.random.default_rng(0)
    rows = [features(shape, 8, 64) for shape in SHAPES]
    seconds = [seconds_of(shape) * np.exp(random.normal(0, noise)) for shape in SHAPES]
    coefficients, errors = fit_steps(rows, seconds)
    return Profile(
        machine=MACHINE, device="cpu", threads=1, dtype="float32", batch=8, context=64, coefficients=coefficients,
        median_relative_error=float(np.median(errors)), max_relative_error=max(errors),
        error_quantile=float(np.quantile(errors, 0.9)), watts=4.0, watts_source="stated", metered=False, rows=(),
    )  # fmt: skip


@pytest.mark.parametrize(("noise", "error"), [(0.0, 0.01), (0.05, 0.1)])
def test_a_made_up_machine_comes_back(noise, error):
    profile = profile_of(noise)
    assert profile.median_relative_error < error
    for shape in (LADDER.shape(40, 0), LADDER.shape(40, 16), LADDER.shape(128, 8)):
        assert profile.step_seconds(shape, 8, 64).value == pytest.approx(seconds_of(shape), rel=2 * error)


def test_a_call_of_several_steps_counts_as_so_many(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def steps(shape, batch, context):
        def call() -> None:
            clock[0] += 10 * seconds_of(shape, batch, context)

        return call, 10

    profile = measure_profile(
        steps, SHAPES[:4], batch=8, context=64, budget_seconds=1.0, machine=MACHINE, device="cuda", threads=1,
        dtype="bfloat16", meter=StatedPower(watts=4.0, source="stated"),
    )  # fmt: skip
    for row in profile.rows:
        assert row.median_seconds == pytest.approx(seconds_of(row.shape))
        assert row.low_seconds == pytest.approx(row.high_seconds)


def timed_at(watts: float, monkeypatch) -> Profile:
    """A profile of steps at so many watts by a counter; what warms up takes a thousand, building a model three."""
    clock, counted, calls = [0.0], [0.0], dict.fromkeys(SHAPES[:4], 0)
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def steps(shape, batch, context):
        counted[0] += 3 * seconds_of(shape, batch, context)

        def call() -> None:
            taken = seconds_of(shape, batch, context)
            clock[0] += taken
            counted[0] += taken * (watts if calls[shape] >= 2 else 1000.0)
            calls[shape] += 1

        return call, 1

    return measure_profile(
        steps, SHAPES[:4], batch=8, context=64, budget_seconds=1e-3, machine=MACHINE, device="cpu", threads=2,
        dtype="float32", meter=CountingMeter("a counter", lambda: [counted[0]], [2.0**40]), rounds=1,
    )  # fmt: skip


def test_a_profile_meters_the_steps_that_it_times(monkeypatch):
    profile = timed_at(20.0, monkeypatch)
    assert profile.watts == pytest.approx(20.0)
    assert profile.metered
    assert profile.watts_source == "a counter, with 2 threads at work"
    assert profile.joules(SHAPES[0], 512, 8, 64).value == pytest.approx(
        20 * profile.step_seconds(SHAPES[0], 8, 64).value
    )


def test_a_profile_whose_meter_stood_still_has_stated_watts_and_says_why(monkeypatch):
    profile = timed_at(0.0, monkeypatch)
    assert profile.watts == 2 * 4.5
    assert not profile.metered
    assert "a counter stood still" in profile.watts_source


def test_a_counter_s_watts_are_those_of_the_timed_steps(monkeypatch):
    """What was used before does not count."""
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def steps(shape, batch, context):
        def call() -> None:
            clock[0] += seconds_of(shape, batch, context)

        return call, 1

    counter = CountingMeter("a counter", lambda: [1000.0 + 300.0 * clock[0]], [1e9])
    clock[0] += 50.0
    profile = measure_profile(
        steps, SHAPES[:4], batch=8, context=64, budget_seconds=1.0, machine=MACHINE, device="cuda", threads=1,
        dtype="bfloat16", meter=counter,
    )  # fmt: skip
    assert profile.watts == pytest.approx(300.0)


def test_no_coefficient_is_negative():
    assert min(profile_of(0.2).coefficients.values()) >= 0


def test_seconds_go_with_tokens_and_joules_with_seconds():
    profile = profile_of(0.0)
    one, two = (profile.seconds(SHAPES[0], tokens, 8, 64).value for tokens in (512, 1024))
    assert two == pytest.approx(2 * one)
    assert profile.joules(SHAPES[0], 512, 8, 64).value == pytest.approx(4 * one)


def test_a_profile_comes_back_from_its_file(tmp_path):
    profile = profile_of(0.05)
    write(tmp_path / "profile.json", profile)
    assert read_profile(tmp_path / "profile.json") == profile


def test_features_are_all_there_and_a_dense_shape_has_no_sparse_ones():
    values = features(LADDER.shape(32, 0), 8, 64)
    assert set(values) == set(FEATURES)
    assert values["sparse_layers"] == values["experts"] == values["routed_rows"] == 0


def test_calls_are_timed_in_turn_and_summarised():
    timings = measure_in_turn(
        {"short": lambda: time.sleep(0.001), "long": lambda: time.sleep(0.004)}, rounds=3, round_seconds=0.01
    )
    assert timings["short"].median_seconds < timings["long"].median_seconds
    assert timings["short"].count > timings["long"].count >= 3
    assert timings["long"].low_seconds <= timings["long"].median_seconds <= timings["long"].high_seconds


def test_a_call_that_fills_a_round_is_warmed_up_once_and_others_before_each_round():
    made = dict.fromkeys(("short", "long"), 0)

    def call(name: str, seconds: float) -> None:
        made[name] += 1
        time.sleep(seconds)

    calls = {"short": lambda: call("short", 0.001), "long": lambda: call("long", 0.02)}
    timings = measure_in_turn(calls, rounds=3, round_seconds=0.01, warmup=2)
    assert made["long"] == timings["long"].count + 2 == 3 + 2
    assert made["short"] == timings["short"].count + 2 + 2


def test_the_machine_is_described():
    machine = describe()
    assert machine["cores"] == usable_cores() >= 1
    assert machine["memory_bytes"] > 1e8
