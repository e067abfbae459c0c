"""A study of several optimizers: each rival of its verdict has the one that is better for it at that cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from msgspec.structs import replace as with_fields

from sparsedial.errors import UserError
from sparsedial.records.study import VerdictSeeds
from sparsedial.runs.simulated import Simulated
from sparsedial.settings import fill
from sparsedial.shape.ladder import Ladder
from sparsedial.sweep.budgets import REPORT_SECONDS, predict_phases
from sparsedial.sweep.design import design
from sparsedial.sweep.driver import conduct
from sparsedial.sweep.equal_cost import Timing, plan_seconds
from sparsedial.sweep.expect import OVERRUN_SHARE, whole_seconds
from sparsedial.sweep.findings import best_of_study, plan_at_top
from sparsedial.sweep.judge import contest, judge, name_rivals
from sparsedial.sweep.layout import cell_seconds
from sparsedial.sweep.question import require_same
from sparsedial.sweep.rivals import Rival, Rivals
from sparsedial.verbs.study.settings import StudySettings
from tests.sweep.simulation import LAW, PROFILE, STILL, WORLD, Known, asked, at_verdict, bench, layout_of, true_seconds

BOTH = ("adamw", "muon")
GAIN = 0.08
LADDER = Ladder(vocab_size=256, context=64)
CURRENCIES = ("flops", "seconds")


def question(**more):
    return asked(**{"time": 1500.0, "optimizers": BOTH, **more})


def gains(dense: float = 0.0, sparse: float = 0.0):
    """What Muon is worth to each family."""
    return lambda shape, optimizer: (sparse if shape.experts else dense) if optimizer == "muon" else 0.0


def slower(dense: float = 1.0, sparse: float = 1.0):
    """Step times where Muon's are so many times AdamW's."""

    def seconds(shape, recipe):
        factor = (sparse if shape.experts else dense) if recipe.optimizer == "muon" else 1.0
        return factor * true_seconds(shape, recipe)

    return seconds


def ended(world, seed=0, **more):
    made = bench(world, question=question(**more), seed=seed)
    return made, conduct(made.lab, made.notebook, laws=Known(LAW))


def sides(findings, currency):
    verdict = findings.judged.verdicts.of(currency)
    return {"dense": verdict.dense.optimizer, "sparse": verdict.sparse.optimizer}


def test_each_family_gets_the_optimizer_that_is_better_for_it():
    _, findings = ended(replace(STILL, gain=gains(dense=GAIN, sparse=-GAIN)))
    for currency in CURRENCIES:
        assert sides(findings, currency) == {"dense": "muon", "sparse": "adamw"}


def test_the_verdict_is_about_the_better_models():
    _, plain = ended(STILL)
    _, better = ended(replace(STILL, gain=gains(dense=GAIN)))
    gap, mended = (found.judged.verdicts.flops.gap.mean for found in (plain, better))
    assert gap - mended == pytest.approx(GAIN, abs=0.003)


def test_an_optimizer_may_be_better_at_equal_flops_and_too_slow_at_equal_seconds():
    _, findings = ended(replace(STILL, gain=gains(sparse=0.02), step_seconds=slower(sparse=3.0)))
    assert sides(findings, "flops")["sparse"] == "muon"
    assert sides(findings, "seconds")["sparse"] == "adamw"


def test_the_dense_model_of_equal_seconds_may_have_another_optimizer_than_the_one_that_sets_the_budget():
    dense, sparse = (LADDER.shape(48, experts) for experts in (0, 32))
    budget = Rival(family="dense", shape=dense, steps=1000, batch=8, optimizer="muon")
    plain = replace(budget, steps=1150, optimizer="adamw")
    other = Rival(family="sparse", shape=sparse, steps=700, batch=8)
    timing = Timing(
        considered={"dense": [dense], "sparse": [sparse]},
        listed={"dense": [dense], "sparse": [sparse]},
        step_seconds={budget.kind: 0.0115, plain.kind: 0.01, other.kind: 0.014},
    )
    plan = plan_seconds(timing, Rivals(dense=budget, sparse=other), Rivals(dense=plain, sparse=other))
    assert plan.rivals.dense == plain
    assert plan.budget_run == budget
    assert plan.budget_seconds == pytest.approx(11.5)


def test_costs_stay_equal_where_the_steps_of_an_optimizer_take_longer():
    _, findings = ended(replace(STILL, gain=gains(dense=0.3, sparse=0.3), step_seconds=slower(1.3, 1.8)))
    verdict = findings.judged.verdicts.seconds
    assert sides(findings, "seconds") == {"dense": "muon", "sparse": "muon"}
    assert verdict.cost_miss is None
    assert verdict.sparse.seconds == pytest.approx(verdict.dense.seconds, rel=0.03)


def test_each_optimizer_has_rates_of_its_own():
    world = replace(STILL, gain=gains(0.3, 0.3), rate_factor=lambda name: 4.0 if name == "muon" else 1.0)
    made, findings = ended(world)
    (muon,) = findings.other_rates
    assert muon.optimizer == "muon"
    assert muon.model.rate == pytest.approx(4 * findings.rates.model.rate, rel=0.2)
    side = findings.judged.verdicts.flops.sparse
    assert side.learning_rate == muon.model.at(side.shape, side.tokens)
    assert made.notebook.study.other_learning_rates == (muon,)
    grid = {result.run.recipe.optimizer for result in findings.cells.values()}
    assert grid == {"adamw"}


def test_one_optimizer_is_the_optimizer_of_all_runs():
    for optimizers in (("adamw",), ("muon",)):
        made = bench(WORLD, question=question(optimizers=optimizers))
        conduct(made.lab, made.notebook, laws=Known(LAW))
        assert {run.recipe.optimizer for run in made.executor._runs.values()} == set(optimizers)
        assert not any("muon" in label for label in made.executor.labels)


def test_the_better_optimizer_is_chosen_on_runs_that_no_verdict_uses_and_the_record_says_why():
    made, findings = ended(replace(WORLD, gain=gains(dense=GAIN)))
    tried = [label for label in made.executor.labels if "muon" in label and "selection" in label]
    assert tried
    because = findings.judged.verdicts.flops.dense.sent_because
    assert "on validation text it beat" in because
    assert "AdamW" in because


def test_the_plan_is_to_be_trained_as_the_best_model_was():
    made, findings = ended(replace(STILL, gain=gains(GAIN, GAIN)))
    plan, best = plan_at_top(made.lab, findings), best_of_study(findings, None)
    assert best.optimizer == plan.recipe.optimizer == "muon"
    assert plan.recipe.learning_rate == findings.by_optimizer["muon"].model.at(plan.shape, plan.tokens)
    assert any("with Muon" in mark for mark in plan.marks)
    made, findings = ended(STILL)
    assert plan_at_top(made.lab, findings).recipe.optimizer == "adamw"


def test_without_time_to_try_the_scans_and_the_law_choose():
    """By the scans Muon is better at equal FLOPs; three times as slow it is not at equal seconds."""
    world = replace(STILL, gain=gains(GAIN, 0.02), step_seconds=slower(dense=1.1, sparse=3.0))
    at = at_verdict(world=world, question=question())
    chosen = at.chosen(world, 0, selection=0)
    found = {(currency, family): sent for currency, both in chosen.sent.items() for family, sent in both.items()}
    assert {key: sent.rival.optimizer for key, sent in found.items()} == {
        ("flops", "dense"): "muon",
        ("flops", "sparse"): "muon",
        ("seconds", "dense"): "muon",
        ("seconds", "sparse"): "adamw",
    }
    assert all("no time to try both optimizers" in sent.because for sent in found.values())


def test_an_optimizer_that_scans_found_worse_does_not_go_untried():
    world = replace(STILL, gain=gains(-GAIN, -GAIN))
    chosen = at_verdict(world=world, question=question()).chosen(world, 0, selection=0)
    assert {sent.rival.optimizer for both in chosen.sent.values() for sent in both.values()} == {"adamw"}


def test_without_a_law_the_optimizer_of_equal_flops_goes_untried():
    world = replace(STILL, gain=gains(GAIN, GAIN))
    chosen = at_verdict(law=None, world=world, question=question()).chosen(world, 0, selection=0)
    assert {sent.rival.optimizer for both in chosen.sent.values() for sent in both.values()} == {"muon"}


@pytest.mark.parametrize("limit", [400.0, 600.0, 1500.0, 3000.0])
@pytest.mark.parametrize("slowness", [0.8, 1.0, 1.3])
def test_a_second_optimizer_keeps_the_time(limit, slowness):
    world = replace(
        WORLD,
        gain=gains(GAIN, GAIN),
        step_seconds=slower(1.15, 1.7),
        slowness=lambda seconds: slowness,
        time_noise=0.03,
    )
    made, _ = ended(world, time=limit)
    assert made.executor.seconds + REPORT_SECONDS < (1 + OVERRUN_SHARE) * limit


def test_a_second_optimizer_is_tried_in_the_time_that_was_planned():
    made, _ = ended(replace(WORLD, gain=gains(GAIN, GAIN), step_seconds=slower(1.15, 1.5)), time=1500.0)
    assert made.notebook.study.selection_seeds == VerdictSeeds(flops=2, seconds=2)
    assert min(made.notebook.study.verdict_seeds.flops, made.notebook.study.verdict_seeds.seconds) >= 3


def test_a_second_optimizer_makes_the_grid_smaller_and_the_forecast_longer():
    one, two = (layout_of(asked(time=1500.0, optimizers=names)) for names in (BOTH[:1], BOTH))
    assert two.budgets[-1] < one.budgets[-1]
    alike = with_fields(one, optimizers=BOTH)
    phases = [predict_phases(layout, PROFILE, 2) for layout in (one, alike)]
    dense = [cell_seconds(one, PROFILE, cell) for cell in one.top_cells if not cell.experts]
    assert phases[1].learning_rates > 2 * phases[0].learning_rates
    assert phases[1].verdict > phases[0].verdict + 8 * min(dense)
    low, longer = (whole_seconds(bench(layout=layout).lab, 9e9, 3, 0.0)[0] for layout in (one, alike))
    assert longer > 1.05 * low


def test_equal_families_are_rarely_called_different_although_each_chose_its_optimizer():
    world = replace(WORLD, loss=lambda shape, tokens: 1.3, rate_penalty=0.0)
    at = at_verdict(world=world, question=question())
    rates, law = at.rates, at.law
    wrong = dict.fromkeys(CURRENCIES, 0)
    for seed in range(60):
        executor = Simulated(world, workers=2, seed=seed)
        lab = replace(at.bench.lab, archive=executor, executor=executor)
        named = name_rivals(lab, rates, law, at.cells)
        chosen = contest(lab, rates, law, at.cells, named, VerdictSeeds(flops=2, seconds=2))
        judged = judge(lab, rates, law, chosen, VerdictSeeds(flops=3, seconds=3))
        for currency in CURRENCIES:
            wrong[currency] += judged.verdicts.of(currency).winner != "undecided"
    assert np.max(list(wrong.values())) <= 6


def test_slower_steps_of_an_optimizer_are_no_slower_machine():
    said: list[str] = []
    made = bench(replace(WORLD, step_seconds=slower(3.0, 3.0)), question=question())
    conduct(made.lab, made.notebook, laws=Known(LAW), say=said.append)
    assert not [line for line in said if "slower" in line]


def test_a_study_without_a_wish_tries_both_where_it_has_ten_minutes():
    for limit, names in ((590.0, BOTH[:1]), (600.0, BOTH), (3000.0, BOTH)):
        assert layout_of(question(time=limit, optimizers=())).optimizers == names
    assert question(time=3000.0, optimizers=("muon",)).optimizers == ("muon",)


def test_a_law_that_can_be_checked_comes_before_a_second_optimizer_and_that_before_a_fourth_budget():
    def laid(slowness: float, limit: float, **more):
        machine = with_fields(
            PROFILE, coefficients={name: slowness * was for name, was in PROFILE.coefficients.items()}
        )
        wanted = question(time=limit, sparsities=(0.0, 0.75, 0.875, 0.9375), **more)
        layout, _ = design(wanted, 256, lambda *_: machine, lambda: 40.0)
        return len(layout.budgets), layout.optimizers

    assert laid(1.0, 2400.0, optimizers=()) == (3, BOTH)
    assert laid(1.0, 2400.0, optimizers=("adamw",)) == (4, ("adamw",))
    assert laid(2.0, 600.0, optimizers=()) == (2, ("adamw",))
    with pytest.raises(UserError, match="too short"):
        laid(2.0, 600.0)


def test_words_that_name_no_optimizer_are_refused_and_a_folder_stays_with_its_own():
    with pytest.raises(UserError, match="no optimizer named 'mion'") as caught:
        fill(StudySettings, {"optimizers": "adamw,mion"}, "study")
    assert "muon" in caught.value.hint
    held, asked_now = (question(optimizers=names).inputs for names in (BOTH, ("muon",)))
    with pytest.raises(UserError, match="with optimizers=adamw,muon, not optimizers=muon"):
        require_same(question().out, held, asked_now)
