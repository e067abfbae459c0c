"""A measured effect is the true one, equal parts are rarely called different, and seeds are compared in pairs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scipy import stats

from sparsedial.errors import UserError
from sparsedial.records.effect import Effect
from sparsedial.records.probes import ProbeScore
from sparsedial.records.quantities import Interval
from sparsedial.records.record import plain
from sparsedial.sweep.effect import PARTS, best_part, measure_effect, train_parts
from sparsedial.sweep.effect_design import LEAST_STEPS, PLANNED_SHARE, SCORED_TOKENS, plan_effect
from sparsedial.sweep.paired import is_above, is_below, mean_difference, paired_difference
from tests.records.held import of_values
from tests.sweep.effects import BUDGETS, asked, effect_of, lab_of, plan_of
from tests.sweep.simulation import PROFILE

NOISE = {"seed_noise": 0.002, "shared_noise": 0.02}
MANY = 200


def less(nats: float):
    """A part on which models are better by so much."""
    return lambda tokens: -nats


def test_a_known_effect_is_found_with_its_size():
    effect = effect_of({"kept": less(0.02), "full": less(0.01)}, **NOISE)
    assert effect.winner == "kept"
    for found, truth in ((effect.kept_minus_random, -0.02), (effect.kept_minus_full, -0.01)):
        for at_budget in found:
            assert at_budget is not None
            assert at_budget.mean == pytest.approx(truth, abs=0.004)
            assert at_budget.low < at_budget.mean < at_budget.high < 0
            assert at_budget.items == 5
    assert "the kept part is best" in effect.sentence
    assert "better by 0.0" in effect.sentence


@pytest.mark.parametrize("best", PARTS)
def test_any_part_may_win(best):
    assert effect_of({best: less(0.02)}, **NOISE).winner == best


def test_a_part_must_beat_both_others():
    effect = effect_of({"kept": less(0.05), "full": less(0.05)}, **NOISE)
    assert effect.winner == "undecided"
    assert is_below(effect.kept_minus_random[-1])
    assert "no part is better than both others" in effect.sentence


def test_a_part_may_lose_to_both_others():
    effect = effect_of({"kept": less(-0.05)}, **NOISE)
    assert effect.winner == "undecided"
    assert "the kept part is worse than both others" in effect.sentence


def test_equal_parts_are_rarely_called_different():
    effects = [effect_of({}, seed, **NOISE) for seed in range(MANY)]
    for found in ("kept_minus_random", "kept_minus_full"):
        for budget in (0, 1):
            differences = [getattr(effect, found)[budget] for effect in effects]
            wrong = sum(is_below(one) or is_above(one) for one in differences)
            assert wrong <= stats.binom.ppf(0.99, MANY, 0.05)
    assert sum(effect.winner != "undecided" for effect in effects) <= 0.05 * MANY
    assert sum(effect.direction_over_budgets != "unresolved" for effect in effects) <= stats.binom.ppf(0.99, MANY, 0.05)


def test_the_interval_covers_the_true_difference():
    effects = [effect_of({"kept": less(0.003)}, seed, **NOISE) for seed in range(MANY)]
    ends = [(one.low, one.high) for effect in effects if (one := effect.kept_minus_random[1]) is not None]
    covered = sum(low < -0.003 < high for low, high in ends)
    assert covered >= stats.binom.ppf(0.01, MANY, 0.95)


def test_what_a_seed_does_to_all_parts_cancels():
    """The noise between seeds is twenty times the effect."""
    effect = effect_of({"kept": less(0.005)}, seed_noise=0.0005, shared_noise=0.1)
    assert effect.winner == "kept"
    point = next(point for point in effect.points if point.part == "kept")
    assert point.loss.high - point.loss.low > 0.05


def test_runs_of_a_seed_differ_in_their_text_alone():
    lab = lab_of({}, **NOISE)
    runs = train_parts(lab, lab.plan.budgets, lambda budget: budget.steps, PARTS)
    for budget in lab.plan.budgets:
        for seed in lab.seeds:
            each = [runs[part, budget.budget_flops].runs[seed] for part in PARTS]
            assert len({(run.recipe, run.shape, run.flops) for run in each}) == 1
            assert len({run.text_digest for run in each}) == 3
            assert each[0].recipe.seed == seed


def test_a_pair_is_one_seed_s():
    ours, theirs = {1: 3.0, 2: 1.0, 3: 2.0}, {3: 2.1, 1: 3.1, 2: 1.11}
    found = paired_difference(ours, theirs)
    assert found is not None
    assert found.mean == pytest.approx(-0.31 / 3)
    reference = stats.ttest_rel([3.0, 1.0, 2.0], [3.1, 1.11, 2.1])
    low, high = reference.confidence_interval(0.95)
    assert (found.low, found.high, found.p_value) == pytest.approx((low, high, reference.pvalue))


def test_a_seed_that_diverged_is_in_no_pair():
    found = paired_difference({1: 3.0, 2: 1.0, 3: 2.0}, {1: 3.1, 3: 2.2})
    assert found is not None
    assert found.items == 2
    assert paired_difference({1: 3.0}, {1: 3.1}) is None
    assert best_part({"kept": {1: 1.0}, "random": {1: 2.0}, "full": {1: 2.0}}) == "undecided"


def test_differences_that_are_alike_decide_nothing():
    found = mean_difference([0.0, 0.0, 0.0])
    assert found is not None
    assert (found.low, found.high, found.p_value) == (None, None, 1.0)
    assert not is_above(found)


@pytest.mark.parametrize(
    ("worth", "direction"),
    [
        (lambda tokens: -0.01 if tokens < 1e6 else -0.05, "grows"),
        (lambda tokens: -0.05 if tokens < 1e6 else -0.01, "shrinks"),
        (less(0.03), "unresolved"),
    ],
)
def test_the_direction_is_that_of_the_lead(worth, direction):
    lab = lab_of({"kept": worth}, **NOISE)
    tokens = [budget.steps * lab.plan.batch * lab.plan.context for budget in lab.plan.budgets]
    assert tokens[0] < 1e6 < tokens[1]
    effect = measure_effect(lab, "ef" * 32, lambda: 1.0)
    assert effect.direction_over_budgets == direction
    assert effect.direction_against_full == direction
    assert "Nothing follows for other budgets" in effect.direction_sentence


def test_a_lead_that_is_lost_shrinks():
    effect = effect_of({"kept": lambda tokens: -0.02 if tokens < 1e6 else 0.02}, **NOISE)
    assert effect.direction_over_budgets == "shrinks"
    assert "worse by" in effect.sentence


def test_repeats_are_tokens_over_those_of_the_part():
    effect = effect_of({}, **NOISE)
    for point in effect.points:
        assert point.repeats == pytest.approx(point.tokens / (10e6 if point.part == "full" else 5e6))
    by_part = {point.part: point.repeats for point in effect.points if point.budget_flops == BUDGETS[1]}
    assert by_part["kept"] == by_part["random"] == pytest.approx(2 * by_part["full"])


def test_a_score_is_paid_for_in_tokens():
    inputs = asked(selection_flops=4e10)
    lab = lab_of({"kept": less(0.02)}, inputs=inputs, **NOISE)
    effect = measure_effect(lab, "ef" * 32, lambda: 1.0)
    assert effect.equal_total is not None
    assert effect.equal_total_reason is None
    for point, budget in zip(effect.equal_total.points, lab.plan.budgets, strict=True):
        step = point.flops / (budget.steps_at_equal_total or 0)
        assert 0 <= budget.budget_flops - 4e10 - point.flops < step
    assert effect.equal_total.selection_flops == 4e10
    assert effect.equal_total.kept_minus_random[0].mean > effect.kept_minus_random[0].mean
    assert "with the score's FLOPs counted" in effect.equal_total.sentence


def test_only_budgets_that_leave_enough_pay_for_the_score():
    lab = lab_of({"kept": less(0.02)}, inputs=asked(selection_flops=9e10), **NOISE)
    effect = measure_effect(lab, "ef" * 32, lambda: 1.0)
    assert effect.equal_total is not None
    assert effect.equal_total.budgets_flops == BUDGETS[1:]
    assert [point.budget_flops for point in effect.equal_total.points] == [BUDGETS[1]]
    assert len(effect.equal_total.kept_minus_random) == len(effect.equal_total.kept_minus_full) == 1
    assert effect.equal_total_reason == "the score cost 9e+10 FLOPs, which leaves too little of 1e+11 to train on"


@pytest.mark.parametrize(("flops", "says"), [(0.0, "uses no model"), (9e11, "too little of 1e+11 and of 4e+11")])
def test_without_equal_total_flops_the_reason_is_said(flops, says):
    lab = lab_of({}, inputs=asked(selection_flops=flops), **NOISE)
    effect = measure_effect(lab, "ef" * 32, lambda: 1.0)
    assert effect.equal_total is None
    assert says in effect.equal_total_reason


def test_the_loss_by_domain_is_a_mean_over_seeds_of_each_part():
    lab = lab_of({"kept": less(0.02)}, **NOISE)
    lab = replace(lab, by_domain=lambda run: {"code": run.test_loss - 1, "prose": run.test_loss + 1})
    effect = measure_effect(lab, "ef" * 32, lambda: 1.0)
    for point in effect.points:
        assert point.domains["code"].mean == pytest.approx(point.loss.mean - 1)
        assert point.domains["prose"].high == pytest.approx(point.loss.high + 1)


def answered(bits: float) -> ProbeScore:
    """The score of a level, by its bits per byte."""
    interval = Interval(mean=bits, low=bits, high=bits)
    return ProbeScore(items=9, answer_bits_per_byte=interval, exact=interval, chance=0.1, p_value=0.5, at_chance=True)


def test_probes_are_a_mean_over_levels_and_seeds_of_each_part():
    def answers(shape, loss):
        return {"facts": {"few": answered(loss), "many": answered(loss + 2)}}

    lab = lab_of({"kept": less(0.5)}, inputs=asked(probes=0.08), probes=answers, **NOISE)
    effect = measure_effect(lab, "ef" * 32, lambda: 1.0)
    for point in effect.points:
        assert point.probes["facts"].mean == pytest.approx(point.validation_loss.mean + 1)
        assert point.probes["facts"].high == pytest.approx(point.validation_loss.high + 1)
        assert point.probes_reason is None
    assert {point.probes_reason for point in effect_of({}, **NOISE).points} == {"no probes were asked for"}


def test_the_record_holds_to_its_contract():
    effect = effect_of({}, **NOISE)
    assert of_values(plain(effect), Effect) == effect


def planned(inputs, seconds: float = 600.0, **changes):
    given = {"workers": 2, "scored_tokens": 2 * SCORED_TOKENS, "domains": False, **changes}
    return plan_effect(inputs, 257, PROFILE, seconds=seconds, **given)


@pytest.mark.parametrize("minutes", [3, 10, 60])
def test_the_budgets_fit_the_time(minutes):
    timed = asked(time=60.0 * minutes, budgets=())
    plan = planned(timed, 60.0 * minutes)
    assert 0.3 * 60 * minutes < plan.predicted_seconds <= PLANNED_SHARE * 60 * minutes
    low, high = plan.budgets
    assert low.budget_flops == pytest.approx(high.budget_flops / 4, rel=0.05)
    assert low.steps >= LEAST_STEPS


def test_more_of_anything_leaves_less_for_the_budgets():
    timed = asked(time=600.0, budgets=())
    usual = planned(timed).budgets[1].budget_flops
    assert planned(timed, workers=1).budgets[1].budget_flops < usual
    assert planned(asked(time=600.0, budgets=(), seeds=10)).budgets[1].budget_flops < usual
    assert planned(timed, scored_tokens=20 * SCORED_TOKENS, domains=True).budgets[1].budget_flops < usual


def test_a_time_too_short_names_the_least():
    with pytest.raises(UserError, match="too short for two budgets") as refused:
        planned(asked(time=10.0, budgets=()), 2.0)
    assert "the minimum here is about" in (refused.value.hint or "")


def test_budgets_too_small_are_refused():
    with pytest.raises(UserError, match="1e\\+08 FLOPs allow no model"):
        planned(asked(budgets=(1e8, 4e11)))


def test_a_larger_budget_has_a_larger_model():
    low, high = plan_of(asked(budgets=(1e11, 1e13))).budgets
    assert low.shape.d_model < high.shape.d_model
    assert high.learning_rate < low.learning_rate
