"""Which model a family sends to a verdict: by validation where time allows, else by how far the law can be trusted."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
from msgspec.structs import replace as with_fields

from sparsedial.records.study import VerdictSeeds
from sparsedial.runs.simulated import Simulated
from sparsedial.sweep.budgets import REPORT_SECONDS
from sparsedial.sweep.driver import conduct
from sparsedial.sweep.expect import OVERRUN_SHARE
from sparsedial.sweep.judge import contest
from tests.sweep.choosing import (
    CHECK,
    CURRENCIES,
    EQUAL,
    REFERENCE,
    Outcome,
    Ready,
    outcome,
    ready,
    with_law,
    wrong_world,
)
from tests.sweep.simulation import LAW, STILL, WORLD, Known, asked, at_verdict, bench, whole

STUDIES = 60
TRUSTED = with_fields(LAW, held_out=CHECK)


@functools.cache
def grids() -> list[Ready]:
    """Studies where dense is 1 to 3 % worse at the largest budget than the law says."""
    worlds = [with_law(REFERENCE, seed) for seed in range(STUDIES)]
    return [ready(world, seed, law) for seed, (world, law) in enumerate(worlds)]


@functools.cache
def wrong(selection: int) -> list[Outcome]:
    """Their ends, where the rivals are selected with so many seeds."""
    laws = [with_law(REFERENCE, seed)[1] for seed in range(STUDIES)]
    return [outcome(at, with_fields(law, held_out=CHECK), selection) for at, law in zip(grids(), laws, strict=True)]


def regret(found, currency, family):
    return float(np.mean([one.regret[currency][family] for one in found]))


def test_a_law_that_is_wrong_about_dense_sends_dense_too_wide_and_the_selection_mends_most_of_it():
    for currency in CURRENCIES:
        assert regret(wrong(0), currency, "dense") > 0.001
        assert regret(wrong(2), currency, "dense") < 0.5 * regret(wrong(0), currency, "dense")
        assert regret(wrong(2), currency, "sparse") < 0.002, "the law is right about sparse"


@pytest.mark.parametrize("currency", CURRENCIES)
def test_the_interval_covers_the_gap_of_models_that_were_selected(currency):
    assert np.mean([one.holds[currency] for one in wrong(2)]) >= 0.9


@pytest.mark.parametrize("currency", CURRENCIES)
def test_families_of_equal_models_are_rarely_called_different_after_a_selection(currency):
    found = [outcome(ready(EQUAL, seed, LAW), LAW, 2) for seed in range(STUDIES)]
    assert np.mean([one.winner[currency] != "undecided" for one in found]) <= 0.1


def test_the_runs_that_select_have_seeds_of_their_own():
    at = at_verdict(world=wrong_world(REFERENCE))
    executor = Simulated(WORLD)
    lab = replace(at.bench.lab, archive=executor, executor=executor)
    contest(lab, at.rates, LAW, at.cells, at.named, VerdictSeeds(flops=2, seconds=2))
    selected = {run.recipe.seed for run in executor._runs.values()}
    judged = at.judged(WORLD, 0, seeds=5)
    verdict = {run.recipe.seed for pair in (judged.flops, judged.seconds) for run in (*pair.dense, *pair.sparse)}
    grid = {result.run.recipe.seed for result in at.cells.values()} | set(lab.cell_seeds(3))
    assert selected
    assert not selected & (verdict | grid)


# Where nothing is selected


def sent(law, selection=0, world=None):
    at = at_verdict(law=law, world=world or wrong_world(REFERENCE))
    return at.chosen(at.bench.executor.world, 0, selection).sent["flops"]["dense"]


def test_the_law_goes_unseen_where_it_beat_every_plain_guess():
    assert sent(TRUSTED).named_by == "law"
    assert "beat the plain guesses" in sent(TRUSTED).because


def test_the_measured_best_goes_where_a_plain_guess_beat_the_law_or_none_was_checked():
    beaten = with_fields(LAW, held_out=with_fields(CHECK, law_on_the_same=0.03))
    unguessed = with_fields(LAW, held_out=with_fields(CHECK, baselines={}, law_on_the_same=None))
    for law, words in ((beaten, "did not beat"), (LAW, "no held-out budget"), (unguessed, "did not beat")):
        assert sent(law).named_by == "measured"
        assert words in sent(law).because


def test_the_measured_best_goes_without_a_law():
    assert sent(None).named_by == "measured"


def test_a_model_that_both_name_is_trained_no_more_often():
    at = at_verdict(world=STILL)
    executor = Simulated(STILL)
    lab = replace(at.bench.lab, archive=executor, executor=executor)
    chosen = contest(lab, at.rates, LAW, at.cells, at.named, VerdictSeeds(flops=2, seconds=0))
    assert {one.named_by for one in chosen.sent["flops"].values()} == {"both"}
    assert not executor.labels


def test_a_model_that_diverges_is_not_sent():
    law = TRUSTED
    at = at_verdict(law=law, world=wrong_world(REFERENCE))
    chosen = at.named.at_flops["dense"].law
    broken = replace(
        WORLD, best_rate=lambda shape, tokens: WORLD.best_rate(shape, tokens) / (99 if shape == chosen.shape else 1)
    )
    assert at.chosen(broken, 0).flops.dense == at.named.at_flops["dense"].measured


# Time


def test_the_report_says_which_model_was_sent_and_why():
    _, findings = whole(world=wrong_world(REFERENCE))
    for currency in CURRENCIES:
        verdict = findings.judged.verdicts.of(currency)
        for side in (verdict.dense, verdict.sparse):
            assert side.named_by in ("law", "measured", "both")
            assert side.sent_because
    assert findings.selection_seeds.flops == 2


@pytest.mark.parametrize("limit", [220.0, 300.0, 600.0, 1200.0])
@pytest.mark.parametrize("slowness", [0.8, 1.0, 1.3, 1.6])
def test_a_selection_keeps_the_time(limit, slowness):
    world = replace(wrong_world(REFERENCE), slowness=lambda seconds: slowness, time_noise=0.03)
    made = bench(world, question=asked(time=limit))
    conduct(made.lab, made.notebook, laws=Known(TRUSTED))
    assert made.executor.seconds + REPORT_SECONDS < (1 + OVERRUN_SHARE) * limit


def test_a_selection_gives_way_to_the_verdict():
    """On ever slower machines both verdicts select, then one, then none, and then there is no verdict at all."""
    found = []
    for slowness in (0.8, 1.0, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 2.0, 2.6):
        world = replace(wrong_world(REFERENCE), slowness=lambda seconds, slowness=slowness: slowness)
        made = bench(world)
        conduct(made.lab, made.notebook, laws=Known(TRUSTED))
        selection, seeds = made.notebook.study.selection_seeds, made.notebook.study.verdict_seeds
        found.append((selection.flops, selection.seconds, seeds.flops > 0, seeds.seconds > 0))
    assert (2, 2, True, True) in found
    assert (0, 0, True, True) in found
    assert found[-1] == (0, 0, False, False)
