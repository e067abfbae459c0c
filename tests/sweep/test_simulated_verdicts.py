"""Verdicts, held against what is true of the world that their study is done in."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
from msgspec.structs import replace as with_fields

from sparsedial.records.grid import Cell
from sparsedial.records.quantities import Family, family_of
from sparsedial.records.study import VerdictSeeds
from sparsedial.runs.executor import Group
from sparsedial.runs.simulated import Simulated, World
from sparsedial.showing.words import cost, headline, held_equal, verdict_sentence
from sparsedial.sweep.findings import seed_noise
from sparsedial.sweep.judge import OF_TIMED_RUNS, Judged, judge
from sparsedial.sweep.tables import verdict_rows
from sparsedial.sweep.verdict import COST_TOLERANCE, Pair
from tests.sweep.simulation import (
    STILL,
    WORLD,
    at_verdict,
    bench,
    steady,
    true_seconds,
    whole,
)

SEEDS = range(400)
CURRENCIES = ("flops", "seconds")


@functools.cache
def judged_often(world: World) -> list[Judged]:
    """Verdicts that differ by the runs' noise alone."""
    return [steady().judged(world, seed) for seed in SEEDS]


def true_gap(world: World, pair: Pair) -> float:
    dense, sparse = (world.expected_loss(runs[0].shape, runs[0].recipe) for runs in (pair.dense, pair.sparse))
    return dense - sparse


@pytest.mark.parametrize("currency", CURRENCIES)
def test_the_interval_of_a_verdict_covers_the_true_gap(currency):
    held = []
    for judged in judged_often(WORLD):
        gap = getattr(judged.verdicts, currency).gap
        held.append(gap.low <= true_gap(WORLD, getattr(judged, currency)) <= gap.high)
    assert 0.95 <= np.mean(held) <= 0.985  # Welch's interval of three seeds a side is a little wide


@pytest.mark.parametrize("currency", CURRENCIES)
def test_equal_families_are_called_different_in_at_most_5_percent(currency):
    equal = replace(WORLD, loss=lambda shape, tokens: 1.3, rate_penalty=0.0)
    called = [getattr(judged.verdicts, currency).winner != "undecided" for judged in judged_often(equal)]
    assert 0.01 <= np.mean(called) <= 0.05


def test_a_verdict_is_about_test_text():
    judged = steady().judged(STILL, 0)
    for side, runs in (
        (judged.verdicts.flops.dense, judged.flops.dense),
        (judged.verdicts.flops.sparse, judged.flops.sparse),
    ):
        assert side.loss.mean == pytest.approx(STILL.expected_loss(runs[0].shape, runs[0].recipe) + STILL.test_offset)


def test_the_seeds_of_a_verdict_are_fresh():
    _, findings = whole()
    of_cells = {result.run.recipe.seed for result in findings.cells.values()}
    for pair in (findings.judged.flops, findings.judged.seconds):
        for runs in (pair.dense, pair.sparse):
            seeds = [run.recipe.seed for run in runs]
            assert len(set(seeds)) == len(seeds)
            assert not of_cells & set(seeds)


def test_the_best_model_of_each_family_is_the_one_that_the_law_knows():
    made, findings = whole()
    layout, judged = made.lab.layout, findings.judged
    for runs in (judged.flops.dense, judged.flops.sparse):
        run = runs[0]
        options = {cell for cell in findings.cells if (cell.experts > 0) == (run.shape.experts > 0)}
        options = {replace_budget(cell, layout.budgets[-1]) for cell in options}
        losses = {cell: STILL.loss(layout.shape(cell), layout.tokens(cell)) for cell in options if layout.allows(cell)}
        assert STILL.loss(run.shape, run.tokens) <= min(losses.values()) + 1e-9


def replace_budget(cell: Cell, budget_flops: float) -> Cell:
    return Cell(d_model=cell.d_model, experts=cell.experts, budget_flops=budget_flops)


# Equal cost


def costs(pair: Pair) -> tuple[float, float]:
    return tuple(float(np.mean([run.seconds for run in runs])) for runs in (pair.dense, pair.sparse))


def warming(share: float):
    """Steps of sparse models that take longer at first: a short trial makes them look slower than they are."""

    def seconds(shape, recipe):
        first = 40 / recipe.steps if shape.experts else 0.0
        return true_seconds(shape, recipe) * (1 + share * min(first, 1.0))

    return seconds


@pytest.mark.parametrize("share", [0.5, -0.4])
def test_equal_seconds_are_equal_where_the_trial_was_wrong(share):
    world = replace(STILL, step_seconds=warming(share))
    judged = at_verdict(world=world).judged(world, 0)
    dense, sparse = costs(judged.seconds)
    assert abs(sparse / dense - 1) < COST_TOLERANCE
    assert judged.verdicts.seconds.cost_miss is None


@pytest.mark.parametrize("factor", [0.6, 1.3])
def test_equal_seconds_are_equal_where_the_profile_is_wrong(factor):
    world = replace(
        STILL, step_seconds=lambda shape, recipe: true_seconds(shape, recipe) * (factor if shape.experts else 1)
    )
    at = at_verdict(world=world)
    judged = at.judged(world, 0)
    winner = at.contest.seconds.budget_run
    budget = winner.steps * true_seconds(winner.shape, judged.seconds.dense[0].recipe)
    for seconds in costs(judged.seconds):
        assert abs(seconds / budget - 1) < COST_TOLERANCE
    assert judged.verdicts.seconds.budget.value == pytest.approx(budget, rel=1e-3)


@dataclass(frozen=True, kw_only=True)
class Unlucky(World):
    """A world in which the runs of some families and seeds diverge."""

    lost: frozenset[tuple[Family, int]]

    def diverges(self, shape, recipe):
        return (family_of(shape.experts), recipe.seed) in self.lost


LOST = [
    {("sparse", 1)},
    {("dense", 2)},
    {("dense", 1), ("sparse", 3)},
    {("sparse", 1), ("sparse", 2), ("dense", 3)},
]


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("share", [0.5, 0.0])
def test_a_run_that_diverges_sets_neither_steps_nor_budget(lost, share):
    world = replace(STILL, step_seconds=warming(share))
    at = at_verdict(world=world)
    wanted = at.judged(world, 0, seeds=5)
    unlucky = Unlucky(**{**vars(world), "lost": frozenset(lost)})
    judged = at.judged(unlucky, 0, seeds=5)
    for runs, same in ((judged.seconds.dense, wanted.seconds.dense), (judged.seconds.sparse, wanted.seconds.sparse)):
        assert {run.recipe.steps for run in runs} == {run.recipe.steps for run in same}
    assert judged.verdicts.seconds.budget.value == pytest.approx(wanted.verdicts.seconds.budget.value, rel=1e-9)
    assert judged.verdicts.seconds.cost_miss is None


def test_a_simulated_run_that_diverges_ends_as_early_as_a_real_one():
    at = at_verdict(world=STILL)
    runs = at.judged(Unlucky(**vars(STILL), lost=frozenset(LOST[0])), 0).seconds.sparse
    lost, finished = runs[0], runs[1]
    assert (lost.finished, finished.finished) == (False, True)
    assert lost.steps_done - 2 <= 0.2 * lost.recipe.steps < lost.steps_done - 1
    assert lost.seconds == pytest.approx(finished.seconds * lost.steps_done / finished.steps_done)


def test_a_verdict_whose_dense_runs_all_diverge_has_the_predicted_budget():
    at = at_verdict(world=STILL)
    lost = frozenset(("dense", seed) for seed in range(1, 4))
    verdict = at.judged(Unlucky(**vars(STILL), lost=lost), 0).verdicts.seconds
    assert verdict.winner == "undecided"
    assert verdict.budget.value == at.contest.seconds.budget_seconds


class Stopping(Simulated):
    """An executor that is interrupted once, after so many groups."""

    left = 2  # the first timed round, and the same again with adjusted steps

    def submit(self, group: Group, *, first: bool = False) -> None:
        self.left -= 1
        if self.left == -1:
            raise KeyboardInterrupt
        super().submit(group, first=first)


def test_a_verdict_stopped_after_its_steps_were_adjusted_keeps_them():
    world = replace(STILL, step_seconds=warming(0.5), slowness=lambda seconds: 1 + seconds / 400)
    at, kept, seeds = at_verdict(world=world), [], VerdictSeeds(flops=3, seconds=5)
    executor = Stopping(world, workers=2)
    lab = replace(at.bench.lab, archive=executor, executor=executor)
    with pytest.raises(KeyboardInterrupt):
        judge(lab, at.rates, at.law, at.contest, seeds, None, kept.append)
    judged = judge(lab, at.rates, at.law, at.contest, seeds, kept[-1])
    wanted = at.judged(world, 0, seeds=5)
    assert kept[-1].sparse != at.contest.seconds.rivals.sparse.steps
    for runs, same in ((judged.seconds.dense, wanted.seconds.dense), (judged.seconds.sparse, wanted.seconds.sparse)):
        assert [run.recipe.steps for run in runs] == [run.recipe.steps for run in same]


def test_the_budget_in_seconds_is_the_dense_flop_winners_even_when_another_dense_model_runs():
    """A machine whose steps cost the same for all widths favours wider models; there they cost 2 % more than tried."""
    narrow = steady().contest.seconds.budget_run.shape.d_model

    def seconds(shape, recipe):
        return 3e-3 * (1.02 if shape.d_model > narrow and recipe.steps > 200 else 1.0)

    world = replace(STILL, step_seconds=seconds)
    at = at_verdict(world=world)
    judged, plan = at.judged(world, 0), at.contest.seconds
    assert plan.rivals.dense.shape.d_model > plan.budget_run.shape.d_model == narrow
    assert judged.verdicts.seconds.budget.value == pytest.approx(3e-3 * plan.budget_run.steps, rel=1e-3)


def test_a_rung_beyond_the_grid_is_a_rival_at_equal_seconds():
    world = replace(STILL, step_seconds=lambda shape, recipe: 3e-3)
    at = at_verdict(world=world, profile=flat_profile())
    widest = max(cell.d_model for cell in at.cells if not cell.experts)
    assert at.contest.seconds.rivals.dense.shape.d_model > widest
    assert "larger than width" in at.contest.seconds.edges["dense"]


def flat_profile():
    made = bench()
    only_steps = {name: 3e-3 if name == "step" else 0.0 for name in made.lab.profile.coefficients}
    return with_fields(made.lab.profile, coefficients=only_steps)


def test_a_machine_that_slows_down_slows_both_rivals():
    world = replace(STILL, slowness=lambda seconds: 1 + seconds / 400)
    judged = at_verdict(world=world).judged(world, 0, seeds=5)
    dense, sparse = costs(judged.seconds)
    assert abs(sparse / dense - 1) < COST_TOLERANCE


def test_seed_noise_comes_back():
    noises = [seed_noise(verdict_rows(whole(seed)[0].lab.archive, whole(seed)[1].judged)) for seed in range(40)]
    assert np.sqrt(np.mean(np.square(noises))) == pytest.approx(WORLD.seed_noise, rel=0.05)


def metered_at(dense: float, sparse: float) -> Judged:
    """A verdict on a machine with a meter, where steps of the two families take so many watts."""
    return steady().judged(replace(WORLD, watts=lambda shape: sparse if shape.experts else dense), 0)


def test_metered_runs_are_compared_at_equal_joules_by_what_they_used():
    judged = metered_at(20.0, 20.2)
    verdict, pair = judged.verdicts.joules, judged.seconds
    assert verdict.basis == "measured"
    assert verdict.winner == judged.verdicts.seconds.winner == "dense"
    assert verdict.reason.endswith(OF_TIMED_RUNS)
    assert verdict.budget.value == pytest.approx(np.mean([20.0 * run.seconds for run in pair.dense]))
    for side, runs, watts in ((verdict.dense, pair.dense, 20.0), (verdict.sparse, pair.sparse, 20.2)):
        assert side.joules == pytest.approx(np.mean([watts * run.seconds for run in runs]))
        assert side.checkpoint is not None
    assert judged.verdicts.flops.sparse.joules is None  # these runs share the machine


def test_a_loser_of_equal_seconds_that_used_far_fewer_joules_has_not_lost_at_equal_joules():
    verdicts = metered_at(20.0, 16.0).verdicts
    assert verdicts.seconds.winner == "dense"
    assert verdicts.joules.winner == "undecided"
    assert re.search("the sparse runs cost .* less than the budget", verdicts.joules.reason)
    assert "undecided at equal joules" in headline(verdicts)
    assert "undecided" in verdict_sentence(verdicts, "joules")
    assert metered_at(20.0, 24.0).verdicts.joules.winner == "dense"  # one that used more has


def test_a_metered_verdict_says_which_runs_it_is_of_and_what_each_side_used():
    verdicts = metered_at(20.0, 20.2).verdicts
    assert "dense wins at equal joules" in headline(verdicts)
    assert "These are the runs at equal seconds" in verdict_sentence(verdicts, "joules")
    held = held_equal(verdicts, "joules")
    assert held is not None
    assert "seconds of training; the joules of these runs are compared" in held
    assert f"sparse {cost('joules', verdicts.joules.sparse.joules)}" in held


def test_without_a_meter_joules_are_seconds_times_watts_and_say_so():
    verdicts = steady().judged(WORLD, 0).verdicts
    assert verdicts.joules.basis == "estimated"
    assert verdicts.joules.budget.value == pytest.approx(4.0 * verdicts.seconds.budget.value)
    assert "no meter is readable: this is the seconds' finding" in verdicts.joules.reason
    assert "at equal joules" not in headline(verdicts)
