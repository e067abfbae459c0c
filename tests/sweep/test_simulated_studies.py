"""Whole studies in a made-up world: time, open sides, interruptions, and what is fixed before it is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from msgspec.structs import replace as with_fields

from sparsedial.law.bracket import open_side
from sparsedial.records.grid import Cell
from sparsedial.runs.clock import Clock
from sparsedial.runs.executor import Group, Task
from sparsedial.runs.simulated import Simulated
from sparsedial.sweep.budgets import PROBE_SECONDS, REPORT_SECONDS
from sparsedial.sweep.cells import Cells, line_losses
from sparsedial.sweep.driver import conduct
from sparsedial.sweep.expect import OVERRUN_SHARE
from sparsedial.sweep.grid import train_grid
from sparsedial.sweep.judge import LEAST_SEEDS
from sparsedial.sweep.laws import Forecast
from sparsedial.sweep.layout import EXTENSIONS, START_RUNGS, cell_seconds
from sparsedial.sweep.scan import scan_rates
from tests.sweep.simulation import (
    LAW,
    STILL,
    WORLD,
    Known,
    asked,
    at_verdict,
    bench,
    layout_of,
    steady,
    true_law,
    whole,
    world_of,
)

# Time


MACHINES = {
    "steady": lambda limit: replace(WORLD, time_noise=0.03),
    "slower": lambda limit: replace(WORLD, slowness=lambda seconds: 1.15),
    "much slower": lambda limit: replace(WORLD, slowness=lambda seconds: 1.5),
    "slower from half the time on": lambda limit: replace(
        WORLD, slowness=lambda seconds: 1 + 0.4 * (seconds > limit / 2)
    ),
    "faster": lambda limit: replace(WORLD, slowness=lambda seconds: 0.7),
    "up and down": lambda limit: replace(WORLD, slowness=lambda seconds: 1 + 0.3 * np.sin(seconds / 50)),
    "workers die": lambda limit: replace(WORLD, lost_share=0.03),
    "slow beside others": lambda limit: replace(WORLD, beside=1.2, run_overhead_seconds=0.5),
}


@pytest.mark.parametrize("limit", [220.0, 300.0, 350.0, 600.0, 1200.0, 2400.0])
@pytest.mark.parametrize("machine", MACHINES)
def test_the_time_is_kept(limit, machine):
    for seed in range(3):
        made = bench(MACHINES[machine](limit), question=asked(time=limit), seed=seed)
        conduct(made.lab, made.notebook, laws=Known(LAW))
        assert made.executor.seconds + REPORT_SECONDS < (1 + OVERRUN_SHARE) * limit


@pytest.mark.parametrize("limit", [350.0, 600.0])
def test_the_time_is_kept_with_probes(limit):
    """To score cells on probes takes a part of the grid's time, and none of the verdict's."""
    question = asked(time=limit, probes=0.08)
    world = replace(WORLD, probe_tokens=question.probe_tokens, probe_seconds=PROBE_SECONDS, time_noise=0.03)
    plain = layout_of(asked(time=limit))
    assert layout_of(question).flops < plain.flops or layout_of(question).predicted_seconds.grid > (
        plain.predicted_seconds.grid
    )
    for seed in range(3):
        made = bench(world, question=question, seed=seed)
        conduct(made.lab, made.notebook, laws=Known(LAW))
        assert made.executor.seconds + REPORT_SECONDS < (1 + OVERRUN_SHARE) * limit
        assert made.notebook.study.verdict_seeds.seconds >= LEAST_SEEDS


@pytest.mark.parametrize(
    ("slowness", "said"), [(3.0, "probably not hold"), (1.9, "fewer seeds or is left out"), (1.3, "")]
)
def test_a_machine_too_slow_for_the_time_is_told_before_the_grid(slowness: float, said: str):
    made = bench(replace(WORLD, slowness=lambda seconds: slowness), question=asked(time=600.0))
    lines: list[str] = []
    conduct(made.lab, made.notebook, laws=Known(LAW), say=lines.append)
    late = [number for number, line in enumerate(lines) if "slower than when it was measured" in line]
    assert [said in lines[number] for number in late] == [True] * bool(said)
    assert all(number < lines.index("grid below the largest budget") for number in late)
    assert bool(said) or made.lab.clock.elapsed <= 600.0


def test_a_machine_that_becomes_slow_in_the_grid_is_told_before_its_largest_budget():
    limit = 600.0
    made = bench(replace(WORLD, slowness=lambda seconds: 1 + 5 * (seconds > 0.15 * limit)), question=asked(time=limit))
    lines: list[str] = []
    conduct(made.lab, made.notebook, laws=Known(LAW), say=lines.append)
    (late,) = (number for number, line in enumerate(lines) if "slower than when it was measured" in line)
    assert late < lines.index("largest budget")


def test_seeds_of_the_verdict_are_those_that_the_time_holds():
    """Of machines that are ever slower, some have time for five, for fewer, for equal FLOPs alone, and for none."""
    found = set()
    for slowness in (0.8, 1.2, 1.4, 1.5, 1.6, 1.7, 1.8, 2.0, 2.6):
        made = bench(replace(WORLD, slowness=lambda seconds, slowness=slowness: slowness))
        conduct(made.lab, made.notebook, laws=Known(LAW))
        found.add((made.notebook.study.verdict_seeds.flops, made.notebook.study.verdict_seeds.seconds))
    assert {(5, 5), (3, 3), (5, 0), (0, 0)} <= found


# Open sides


def grid_of(law, limit_seconds=None):
    world = replace(world_of(law), seed_noise=0.0)
    made = bench(world, limit_seconds=limit_seconds)
    rates = scan_rates(made.lab).model
    return made, train_grid(made.lab, rates, made.lab.layout.budgets, {})


@pytest.mark.parametrize(("a", "side"), [(20.0, "smaller"), (250.0, "larger")])
def test_open_sides_are_followed(a, side):
    made, cells = grid_of(true_law(a=a), limit_seconds=1e9)
    layout = made.lab.layout
    followed = set(cells) - set(layout.cells)
    assert len(followed) >= 3
    for budget in layout.budgets:
        for experts in layout.experts:
            losses = line_losses(cells, experts, budget)
            extra = len(losses) - START_RUNGS
            ends = open_side(losses)
            assert ends is None or extra == EXTENSIONS or ends == side
            if extra:
                laid = [cell.d_model for cell in layout.cells if (cell.experts, cell.budget_flops) == (experts, budget)]
                assert min(losses) < min(laid) if side == "smaller" else max(losses) > max(laid)


class Noting(Simulated):
    """An executor that notes when each task was submitted."""

    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        self.submitted: list[tuple[float, Task]] = []

    def submit(self, group: Group, *, first: bool = False) -> None:
        self.submitted += [(self.seconds, task) for task in group]
        super().submit(group, first=first)


def test_open_sides_are_followed_only_while_the_verdict_keeps_its_time():
    law = true_law(a=250.0)
    made, cells = grid_of(law, limit_seconds=1e9)
    layout, keep = made.lab.layout, made.lab.keep_for_verdict_seconds
    all_followed = set(cells) - set(layout.cells)
    limit = made.executor.seconds + keep - 60.0  # a minute short of following all
    executor = Noting(made.executor.world)
    made = bench(executor.world, limit_seconds=limit)
    lab = replace(made.lab, executor=executor, archive=executor, clock=Clock(limit, now=executor.now))
    cells = train_grid(lab, scan_rates(lab).model, layout.budgets, {})
    followed = set(cells) - set(layout.cells)
    assert set() < followed < all_followed
    shapes = {(layout.shape(cell), layout.steps(cell)): cell for cell in followed}
    for at, task in executor.submitted:
        cell = shapes.get((task.job.shape, task.job.recipe.steps))
        if cell is not None:
            assert limit - at > keep + layout.repeats(cell.budget_flops) * cell_seconds(layout, lab.profile, cell)


def test_a_side_that_stays_open_leaves_the_verdict_undecided():
    at = at_verdict(law=true_law(a=2500.0), world=world_of(true_law(a=2500.0)))
    judged = at.judged(world_of(true_law(a=2500.0)), 0)
    assert at.contest.open_sides
    assert judged.verdicts.flops.winner == "undecided"
    assert "the last one trained" in judged.verdicts.flops.reason


# Runs that diverge or are lost, and studies that stop


def test_a_cell_ends_when_all_its_seeds_have():
    made = bench(question=asked(cell_seeds=3))
    heard: list[Cells] = []
    lab = replace(made.lab, layout=with_seeds(made.lab.layout))
    rates = scan_rates(lab).model
    cells = train_grid(lab, rates, lab.layout.budgets, {}, lambda so_far: heard.append(dict(so_far)))
    assert all(len(result.seed_losses) == 3 for result in cells.values())
    for so_far in heard:
        assert all(result.loss == cells[cell].loss for cell, result in so_far.items()), "a cell ended before its seeds"
    spread = [np.std(result.seed_losses) for result in cells.values()]
    assert min(spread) > 0


def with_seeds(layout):
    return with_fields(layout, cell_seeds=3)


def test_workers_that_die_change_nothing_but_the_time():
    _, findings = whole()
    made, again = whole(world=replace(WORLD, lost_share=0.1))
    assert len(made.executor.labels) > len(set(made.executor.labels))
    assert again.judged.verdicts.flops == findings.judged.verdicts.flops


class Stopping(Simulated):
    """An executor that is interrupted after so many groups."""

    left = 10

    def submit(self, group: Group, *, first: bool = False) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        super().submit(group, first=first)


def test_a_study_that_was_stopped_goes_on_and_finds_the_same():
    _, findings = whole()
    made = bench()
    executor = Stopping(WORLD, workers=2)
    lab = replace(made.lab, executor=executor, archive=executor)
    starts = 0
    while True:
        try:
            executor.left = 20
            again = conduct(lab, made.notebook, laws=Known(LAW))
            break
        except KeyboardInterrupt:
            starts += 1
    assert starts > 1
    assert len(executor.labels) <= len(set(executor.labels)) + 2 * starts, "only what was under way is done again"
    assert again.judged.verdicts == findings.judged.verdicts
    assert {cell: result.loss for cell, result in again.cells.items()} == {
        cell: result.loss for cell, result in findings.cells.items()
    }


def test_a_cell_that_diverges_is_a_bad_cell_and_no_good_one():
    layout = steady().bench.lab.layout
    top = [cell for cell in layout.top_cells if not cell.experts]
    bad = layout.shape(max(top, key=lambda cell: cell.d_model))
    world = replace(
        STILL, best_rate=lambda shape, tokens: STILL.best_rate(shape, tokens) / (1e3 if shape == bad else 1)
    )
    at = at_verdict(world=world)
    gone = [cell for cell, result in at.cells.items() if result.loss is None]
    assert gone
    assert all(layout.shape(cell) == bad for cell in gone)
    assert at.contest.open_sides == []


# What is fixed before it is known


class Spying(Known):
    """Laws that remember which cells a forecast was made from."""

    def __init__(self, law):
        super().__init__(law)
        object.__setattr__(self, "seen", [])

    def forecast(self, layout, below, wanted) -> Forecast:
        self.seen.append(set(below))
        return super().forecast(layout, below, wanted)


def test_the_prediction_is_written_before_the_largest_budget_and_knows_nothing_of_it():
    made, laws, trained = bench(), Spying(LAW), []
    keep = made.notebook.keep

    def spied(**found):
        if "prediction" in found:
            trained.append(set(made.executor.labels))
        keep(**found)

    made.notebook.keep = spied
    conduct(made.lab, made.notebook, laws=laws)
    top = made.lab.layout.budgets[-1]
    assert laws.seen
    assert all(cell.budget_flops < top for cell in laws.seen[0])
    assert trained
    assert not any(f"{top:.2g} FLOPs" in label for label in trained[0])
    assert len(made.notebook.study.prediction.cells) == len(made.lab.layout.top_cells)


def test_the_predicted_interval_holds_single_runs():
    """It holds as many runs of the largest budget as its confidence says: the law's error and the runs' scatter."""
    scatter, layout = 0.004, steady().bench.lab.layout
    law = with_fields(LAW, rmse_log_loss=scatter, samples=LAW.samples[:1] * 200)
    loss = np.mean([WORLD.loss(layout.shape(cell), layout.tokens(cell)) for cell in layout.top_cells])
    world = replace(WORLD, seed_noise=scatter * loss, rate_penalty=0.0)
    held = []
    for seed in range(40):
        made = bench(world, seed=seed)
        findings = conduct(made.lab, made.notebook, laws=Known(law))
        for cell in made.notebook.study.prediction.cells:
            result = findings.cells[
                Cell(d_model=cell.d_model, experts=cell.experts, budget_flops=made.lab.layout.budgets[-1])
            ]
            held.append(cell.low <= result.loss <= cell.high)
    assert 0.85 <= np.mean(held) <= 0.96
