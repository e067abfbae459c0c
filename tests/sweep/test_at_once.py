"""How many runs a study trains at once on a GPU: what its profile measured, and what its memory holds."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from msgspec.structs import replace as with_fields

from sparsedial.errors import UserError
from sparsedial.machine.card import CardMemory
from sparsedial.machine.profile import FEATURES, Profile
from sparsedial.records.profile import AtOnceTiming
from sparsedial.runs import card_memory
from sparsedial.runs.clock import Clock
from sparsedial.sweep import local_lab
from sparsedial.sweep.at_once import AtOnce, Room
from sparsedial.sweep.budgets import REPORT_SECONDS, fastest
from sparsedial.sweep.design import PLANNED_SHARE, design, left_out
from sparsedial.sweep.driver import conduct
from sparsedial.sweep.expect import OVERRUN_SHARE
from sparsedial.sweep.layout import Layout
from sparsedial.sweep.local_lab import _say_what_fits
from sparsedial.sweep.notebook import Notebook
from tests.sweep.simulation import LAW, PROFILE, WORLD, Known, Silent, asked, bench

HELD = 80 * 10**9


def gpu(small: float, large: float, runs: int = 8) -> Profile:
    """An H100 at 60 TFLOP/s whose smallest step takes 1 ms; so many runs at once gain this at short and long steps."""
    per_flop = {"dense_flops": 1 / 60e12, "expert_flops": 1.5 / 60e12, "parameters": 30 / 3e12}
    times = {"step": 0.3e-3, "layers": 0.35e-3}
    rows = [
        AtOnceTiming(d_model=width, experts=32, step_seconds=step, start_seconds=0.1, runs=runs, times_one=gain)
        for width, step, gain in ((32, 1e-3, small), (256, 8e-3, large))
    ]
    coefficients = dict.fromkeys(FEATURES, 0.0) | times | per_flop
    return with_fields(PROFILE, device="cuda", dtype="bfloat16", coefficients=coefficients, at_once=tuple(rows))


def question(workers: int | None = None, **changes):
    given = {"time": 300.0, "context": 256, "batch": 64, "sparsities": (0.0, 0.75, 0.875, 0.9375), **changes}
    return replace(asked(device="cuda", **given), workers=workers)


def room(free: float) -> Room:
    return Room(card=CardMemory(held=HELD, free=int(free), others=HELD - int(free)), value_bytes=2)


def laid(profile: Profile, asked_for, free: float = HELD) -> tuple[int, Layout]:
    """The number of runs at once, and the layout."""
    layout, _ = design(asked_for, 256, lambda *_: profile, lambda: 30.0, room=room(free))
    return fastest(layout, profile, AtOnce(numbers=asked_for.at_once, room=room(free)))[0], layout


def test_what_several_runs_at_once_gain_buys_larger_budgets():
    """Measured gains, not the number of runs, decide; `--workers` overrides."""
    alone, by_eight = laid(gpu(5.0, 1.5), question(1)), laid(gpu(5.0, 1.5), question())
    assert (alone[0], by_eight[0]) == (1, 8)
    assert by_eight[1].budgets[-1] >= 1.5 * alone[1].budgets[-1]
    assert laid(gpu(1.0, 1.0), question()) == (1, alone[1])
    assert laid(gpu(0.5, 0.4), question(8))[0] == 8
    assert laid(gpu(0.5, 0.4), question(8))[1].budgets[-1] < alone[1].budgets[-1]


@pytest.mark.parametrize(("workers", "numbers", "taken"), [(None, (1, 2, 4, 8), 8), (2, (2,), 2)])
def test_a_study_on_a_gpu_trains_as_many_runs_at_once(monkeypatch, small_text, workers, numbers, taken):
    """From the card and the profile to the executor; a card that others fill gets fewer."""
    asked_of: list[tuple] = []

    def measure_on(*given):
        asked_of.append(given)
        return lambda *_: gpu(5.0, 1.5)

    monkeypatch.setattr(local_lab, "measure_on", measure_on)
    monkeypatch.setattr(local_lab, "compile_ahead", lambda *_: None)
    for free, expected in ((HELD, taken), (3e9, min(taken, 3))):
        monkeypatch.setattr(local_lab, "card_memory", lambda free=free: room(free).card)
        witness = Witness()
        lab = local_lab.local_lab(question(workers), small_text, Notebook(None), Clock(300.0), witness, binds=False)
        assert (asked_of[-1][0], *asked_of[-1][-2:]) == ("cuda", numbers, "adamw")
        assert (lab.workers, lab.executor._most) == (expected, expected)
        assert any(line.startswith(f"{expected} runs at once") for line in witness.notes)


def test_memory_that_runs_out_while_a_grid_s_kernels_are_compiled_is_explained(monkeypatch, small_text):
    def runs_out(*_) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(local_lab, "measure_on", lambda *_: lambda *_: gpu(5.0, 1.5))
    monkeypatch.setattr(local_lab, "card_memory", lambda: room(HELD).card)
    monkeypatch.setattr(card_memory, "card_memory", lambda: room(HELD).card)
    monkeypatch.setattr(local_lab, "write", lambda *_: None)
    monkeypatch.setattr(local_lab, "compile_ahead", runs_out)
    notebook: Any = SimpleNamespace(frozen=None, freeze=lambda _: None)
    with pytest.raises(UserError, match="the GPU's memory ran out: "):
        local_lab.local_lab(question(), small_text, notebook, Clock(300.0), Witness(), binds=True)


def test_the_kernels_of_the_grid_and_of_its_open_sides_are_compiled_before_its_runs(monkeypatch, small_text):
    compiled: list[tuple] = []
    monkeypatch.setattr(local_lab, "measure_on", lambda *_: lambda *_: gpu(5.0, 1.5))
    monkeypatch.setattr(local_lab, "card_memory", lambda: room(HELD).card)
    monkeypatch.setattr(local_lab, "write", lambda *_: None)
    monkeypatch.setattr(local_lab, "compile_ahead", lambda *given: compiled.append(given))
    notebook: Any = SimpleNamespace(frozen=None, freeze=lambda _: None)
    lab = local_lab.local_lab(question(), small_text, notebook, Clock(300.0), Witness(), binds=True)
    shapes, recipe, device, share = compiled[-1]
    laid_shapes = {lab.layout.shape(cell) for cell in lab.layout.cells}
    assert laid_shapes < set(shapes)
    assert (recipe.batch, recipe.context, recipe.dtype) == (lab.layout.batch, 256, "bfloat16")
    assert (device, share) == ("cuda", None)


def compiling(monkeypatch, seconds_of_all: float, at_least: float, limit: float, workers: int | None = None, **changes):
    """A study's lab, its clock, what was compiled and what was said, on a GPU whose kernels take so long to compile:
    the first time all of them, later a share for each shape that is new, but some seconds in any case.
    """
    now, compiled = [0.0], set()

    def measure(*_) -> Profile:
        now[0] += 30.0
        return gpu(5.0, 1.5)

    def compile_ahead(shapes, *_) -> None:
        missing = set(shapes) - compiled
        now[0] += at_least + seconds_of_all * len(missing) / len(shapes)
        compiled.update(missing)

    monkeypatch.setattr(local_lab, "measure_on", lambda *_: measure)
    monkeypatch.setattr(local_lab, "card_memory", lambda: room(HELD).card)
    monkeypatch.setattr(local_lab, "compile_ahead", compile_ahead)
    text: Any = SimpleNamespace(digest="", tokenizer=SimpleNamespace(vocab_size=256), train_tokens=10**9)
    text.summary = lambda: None
    monkeypatch.setattr(local_lab, "executor_for", lambda *_: None)
    clock = Clock(limit, now=lambda: now[0])
    asked_for = question(workers, **{"time": limit, **changes})
    witness = Witness()
    lab = local_lab.local_lab(asked_for, text, Notebook(None), clock, witness, binds=False)
    return lab, clock, compiled, witness


@pytest.mark.parametrize(
    ("limit", "seconds"), [(150.0, 0.0), (150.0, 5.0), (150.0, 25.0), (300.0, 25.0), (300.0, 60.0)]
)
def test_what_compiling_takes_is_no_time_that_the_grid_has(monkeypatch, limit, seconds):
    """62 kernels take 25 s on few cores: a study laid before would end as much too late."""
    lab, clock, compiled, _ = compiling(monkeypatch, seconds, 0.1, limit)
    assert clock.elapsed >= 30.0 + seconds
    assert lab.layout.predicted_seconds is not None
    left = PLANNED_SHARE * (limit - clock.elapsed - REPORT_SECONDS)
    assert lab.layout.predicted_seconds.total <= left + 1.0
    assert {lab.layout.shape(cell) for cell in lab.layout.cells} <= compiled
    quick, *_ = compiling(monkeypatch, 0.0, 0.0, limit)
    assert (lab.layout.budgets[-1] < quick.layout.budgets[-1]) == (seconds >= 25.0)


@pytest.mark.parametrize(("limit", "seconds"), [(150.0, 8.0), (300.0, 25.0)])
def test_a_study_whose_kernels_take_long_keeps_its_time_and_has_its_verdict(monkeypatch, limit, seconds):
    lab, clock, *_ = compiling(monkeypatch, seconds, 0.1, limit, workers=1)
    profile = gpu(5.0, 1.5)

    def step_seconds(shape, recipe) -> float:
        return float(profile.step_seconds(shape, recipe.batch, recipe.context).value)

    world = replace(WORLD, step_seconds=step_seconds, run_overhead_seconds=0.3)
    for seed in range(3):
        asked_for = question(1, time=limit)
        made = bench(world, question=asked_for, layout=lab.layout, profile=profile, seed=seed)
        made.executor.seconds = clock.elapsed
        conduct(made.lab, made.notebook, laws=Known(LAW))
        assert made.executor.seconds + REPORT_SECONDS < (1 + OVERRUN_SHARE) * limit
        assert made.notebook.study.verdict_seeds.flops >= 3
        assert len(lab.layout.budgets) >= 2


def test_a_grid_of_stated_budgets_is_compiled_once_and_stays(monkeypatch):
    lab, clock, *_ = compiling(monkeypatch, 25.0, 0.0, math.inf, time=None, budgets=(2e12, 8e12))
    assert clock.elapsed == 55.0
    assert lab.layout.budgets == (2e12, 8e12)


def test_where_compiling_leaves_too_little_a_study_is_refused_in_words(monkeypatch):
    with pytest.raises(UserError, match="too short for a grid on this machine"):
        compiling(monkeypatch, 90.0, 0.0, 150.0)


class Witness(Silent):
    """Hears of nothing but notes."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def measuring(self, done: int, of: int) -> None:
        """Nothing is measured."""


def test_no_more_runs_at_once_than_the_memory_holds():
    said: list[str] = []
    profile = gpu(5.0, 1.5)
    _, layout = laid(profile, question())
    needed = room(HELD).bytes_of(map(layout.shape, layout.cells), layout.batch, 256)
    some = AtOnce(numbers=(8,), room=room(3.5 * needed))
    assert some.fitting(layout) == [3]
    assert fastest(layout, profile, some)[0] == 3
    _say_what_fits(question(8), layout, 3, room(3.5 * needed), said.append)
    assert said[0].startswith("3 runs at once, since no more fit: ")
    assert "are free; other processes hold" in said[0]


def test_models_that_do_not_fit_are_left_out_and_said():
    profile = gpu(5.0, 1.5)
    asked_for = question(budgets=(2e13, 8e13), time=None)
    _, whole = laid(profile, asked_for, HELD)
    needed = room(HELD).bytes_of(map(whole.shape, whole.cells), whole.batch, 256)
    _, layout = laid(profile, asked_for, 0.6 * needed)
    assert room(HELD).bytes_of(map(layout.shape, layout.cells), layout.batch, 256) <= 0.6 * needed
    assert left_out(asked_for, layout)
    assert not left_out(asked_for, whole)
    said: list[str] = []
    _say_what_fits(asked_for, layout, 1, room(0.6 * needed), said.append)
    assert "parameters do not fit: " in said[0]


def test_a_grid_that_does_not_fit_is_refused_with_its_bytes_before_anything_is_measured():
    def measure(*_):
        pytest.fail("it measured")

    with pytest.raises(UserError, match=r"smallest grid of this study needs \S+ \SB, and .* hold 80 GB") as refused:
        design(question(), 256, measure, lambda: 30.0, room=room(2e7))
    assert str(refused.value.hint).endswith(" fits")
    fits = int(str(refused.value.hint).split()[0])
    assert fits < 64
    design(question(batch=fits), 256, lambda *_: gpu(5.0, 1.5), lambda: 30.0, room=room(2e7))


def test_shapes_that_do_not_fit_beside_one_another_are_not_timed():
    timed: list[int] = []

    def measure(shapes, batch, context, _):
        timed.append(len(shapes))
        assert sum(room(HELD).bytes_of([shape], batch, context) for shape in shapes) <= timed_with[-1]
        return gpu(5.0, 1.5)

    timed_with: list[float] = []
    for free in (HELD, 4e9):
        timed_with.append(free)
        design(question(), 256, measure, lambda: 30.0, room=room(free))
    assert timed[0] > timed[1] > 3


def test_a_grid_of_an_earlier_start_that_no_longer_fits_is_refused():
    _, layout = laid(gpu(5.0, 1.5), question())
    room(HELD).require(layout)
    with pytest.raises(UserError, match=r"largest model of this grid needs .* hold 79.9 GB"):
        room(1e8).require(layout)


@pytest.mark.parametrize("limit", [350.0, 600.0])
def test_the_time_is_kept_where_two_at_once_gain_nothing(limit):
    """Each takes twice as long then, and the machine is not called slow for it."""
    row = AtOnceTiming(d_model=32, experts=8, step_seconds=1e-3, start_seconds=0.1, runs=2, times_one=1.0)
    profile = with_fields(PROFILE, device="cuda", at_once=(row,))
    asked_for = asked(time=limit)
    layout, _ = design(asked_for, 256, lambda *_: profile, lambda: 0.0)
    world = replace(WORLD, beside=2.1, run_overhead_seconds=0.3)
    for seed in range(3):
        made = bench(world, question=asked_for, layout=layout, profile=profile, seed=seed)
        lines: list[str] = []
        conduct(made.lab, made.notebook, laws=Known(LAW), say=lines.append)
        assert made.executor.seconds + REPORT_SECONDS < (1 + OVERRUN_SHARE) * limit
        assert made.notebook.study.verdict_seeds.flops >= 3
        assert not any("slower" in line for line in lines)


@pytest.mark.parametrize(
    ("others", "said"),
    [(None, []), (0.2, []), (0.9, ["other programs kept 0.9 of 2 cores busy: this is planned for what was left"])],
)
def test_a_study_says_where_other_programs_took_a_part_of_the_cores_while_it_measured(monkeypatch, others, said):
    monkeypatch.setattr(local_lab.BusyWatch, "others", lambda self: others)
    monkeypatch.setattr(local_lab.os, "cpu_count", lambda: 2)
    _, _, _, witness = compiling(monkeypatch, 0.0, 0.0, 300.0)
    assert [line for line in witness.notes if "other programs" in line] == said
