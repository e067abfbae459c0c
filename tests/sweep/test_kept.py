"""Shares of a text crossed with the best models: what is true is found, equal models are rarely called different."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scipy import stats

from sparsedial.records.kept import KeptRuns, StudySelection
from sparsedial.records.record import plain
from sparsedial.sweep.crossing import LEAST_TOTAL_SHARE
from sparsedial.sweep.equal_cost import equal_flops
from sparsedial.sweep.kept import best_pair, cross, paying_models, share_tasks, train_shares
from sparsedial.sweep.kept_words import is_resolved
from tests.records.held import of_values
from tests.sweep.shares import SHARES, crossed_in, crossing, lab_of, models_of
from tests.sweep.simulation import steady

NOISE = {"seed_noise": 0.002, "shared_noise": 0.02}
MANY = 200


def test_the_best_pair_is_found_with_its_lead():
    found = crossed_in({(0.5, "sparse"): -0.05, (0.5, "dense"): -0.02}, **NOISE)
    assert (found.best.kept, found.best.family, found.undecided) == (0.5, "sparse", False)
    assert (found.next_best.kept, found.next_best.family) == (0.5, "dense")
    assert found.gap.low < -0.03 < found.gap.high < 0
    assert "the best pair is the sparse model on 0.5 of the text, ahead of" in found.sentence


def test_a_pair_must_be_below_all_others():
    found = crossed_in({(0.5, "sparse"): -0.05, (1.0, "sparse"): -0.05}, **NOISE)
    assert found.undecided
    assert {found.best.kept, found.next_best.kept} == {0.5, 1.0}
    assert "the best pair is undecided" in found.sentence


@pytest.mark.parametrize(("nats", "moves"), [(-0.05, "towards_sparse"), (0.05, "towards_dense")])
def test_a_best_sparsity_that_moves_is_found(nats, moves):
    found = crossed_in({(0.5, "sparse"): nats, (0.25, "sparse"): nats}, **NOISE)
    at_top = [gap for gap in found.sparse_minus_dense if gap.budget_flops == found.budgets_flops[-1]]
    assert [gap.moves for gap in at_top] == [None, moves, moves]
    for gap in at_top[1:]:
        assert gap.change.low < nats < gap.change.high
        assert is_resolved(gap.change)
    assert f"with 0.5 of the text the best sparsity moves {moves.replace('_', ' ')} (" in found.sentence


def test_leaving_data_out_that_hurts_both_alike_moves_nothing():
    found = crossed_in({(0.25, "sparse"): 0.1, (0.25, "dense"): 0.1, (1.0, "sparse"): 0.0}, **NOISE)
    assert [gap.moves for gap in found.sparse_minus_dense if gap.kept < 1] == ["undecided"] * 4
    assert (
        "with 0.25 of the text it is undecided whether the best sparsity moves (sparse minus dense changes by"
        in found.sentence
    )


def often(wrong: int, of: int = MANY) -> bool:
    """Whether so many errors are more than 5 % explains."""
    return wrong > stats.binom.ppf(0.99, of, 0.05)


def test_equal_models_are_rarely_called_different():
    found = [crossed_in({}, seed, **NOISE) for seed in range(MANY)]
    assert not often(sum(not one.undecided for one in found))
    for budget in found[0].budgets_flops:
        at = [[gap for gap in one.sparse_minus_dense if gap.budget_flops == budget] for one in found]
        assert not often(sum(any(gap.moves not in (None, "undecided") for gap in gaps) for gaps in at))
        for number in range(len(SHARES)):
            assert not often(sum(is_resolved(gaps[number].difference) for gaps in at))


def test_the_intervals_cover_the_true_difference_and_its_change():
    two = (1.0, 0.5)
    found = [crossed_in({(0.5, "sparse"): -0.004}, seed, shares=two, **NOISE) for seed in range(MANY)]
    gaps = [[gap for gap in one.sparse_minus_dense if gap.budget_flops == one.budgets_flops[-1]][1] for one in found]
    for name in ("difference", "change"):
        held = [getattr(gap, name) for gap in gaps]
        covered = sum(one.low < -0.004 < one.high for one in held)
        assert covered >= stats.binom.ppf(0.01, MANY, 0.95)


def test_what_a_seed_does_to_all_pairs_cancels():
    """The noise between seeds is twenty times the effect."""
    found = crossed_in({(0.5, "sparse"): -0.005}, seed_noise=0.0003, shared_noise=0.1)
    assert not found.undecided
    assert found.best.kept == 0.5
    for gap in found.sparse_minus_dense:
        assert gap.difference.high - gap.difference.low < 0.01
    point = next(point for point in found.points if point.kept == 0.5)
    assert point.loss.high - point.loss.low > 0.05


def test_runs_of_a_budget_and_a_seed_differ_in_text_and_family_alone():
    lab = lab_of({}, **NOISE)
    models = models_of(lab)
    assert sorted(models) == [lab.layout.budgets[0], lab.layout.budgets[-1]]
    measured = train_shares(lab, steady().rates, models, lab.crossing.texts)
    for budget, pairs in measured.items():
        assert list(pairs) == [(kept, family) for kept in SHARES for family in ("dense", "sparse")]
        for (kept, family), one in pairs.items():
            assert list(one.runs) == [1, 2, 3]
            for seed, run in one.runs.items():
                same = pairs[1.0, family].runs[seed]
                assert (run.recipe, run.shape, run.flops) == (same.recipe, same.shape, same.flops)
                assert run.recipe.seed == seed
                assert 0.99 * budget < run.flops <= budget
                assert run.text_digest == one.share.text_digest
                assert (run.text_digest == lab.text.digest) == (kept == 1)
                assert bool(run.shape.experts) == (family == "sparse")


def test_repeats_are_those_of_each_share():
    found = crossed_in({}, **NOISE)
    for point in found.points:
        share = next(share for share in found.shares if share.kept == point.kept)
        assert point.repeats == pytest.approx(point.tokens / share.train_tokens)
    assert "At equal FLOPs less text is read more often" in found.repeats_sentence
    assert "0.25 of the text" in found.repeats_sentence


def test_the_runs_of_the_verdict_serve_as_those_of_the_full_text():
    at, lab = steady(), lab_of({}, **NOISE)
    models = models_of(lab)
    top = max(models)
    pair = equal_flops(lab, at.rates, models[top], 3)
    tasks = share_tasks(lab, at.rates, {top: models[top]}, lab.crossing.texts[0])
    assert {task.job.hash for task in tasks.values()} == {run.hash for run in (*pair.dense, *pair.sparse)}


def test_a_selection_that_costs_is_paid_in_training_tokens():
    top = steady().bench.lab.layout.budgets[-1]
    found = crossed_in({(0.5, "dense"): -0.05}, paid=True, selection_flops=0.5 * top, **NOISE)
    total = found.equal_total
    assert total is not None
    assert found.equal_total_reason is None
    for point in total.points:
        assert point.kept < 1
        assert 0.98 * top < point.flops + 0.5 * top <= top
    assert (total.pairing.best.kept, total.pairing.best.family) == (0.5, "dense")
    assert "with the selection's FLOPs counted" in total.sentence
    assert of_values(plain(found), StudySelection) == found


def test_what_cannot_be_paid_is_said():
    top = steady().bench.lab.layout.budgets[-1]
    assert "uses no model" in crossed_in({}, **NOISE).equal_total_reason
    dear = crossed_in({}, selection_flops=0.8 * top, **NOISE)
    assert dear.equal_total is None
    assert "leaves too little" in dear.equal_total_reason
    assert crossing(selection_flops=0.8 * top).left(top) == 0
    assert crossing(selection_flops=(1 - LEAST_TOTAL_SHARE) * top).left(top) == pytest.approx(LEAST_TOTAL_SHARE)
    late = crossed_in({}, selection_flops=0.5 * top, **NOISE)
    assert "the time ran out" in late.equal_total_reason


def test_models_that_pay_are_the_same_with_fewer_steps():
    lab = lab_of({}, selection_flops=0.5 * steady().bench.lab.layout.budgets[-1])
    models = models_of(lab)
    top = max(models)
    ((budget, paying),) = paying_models(lab, models).items()
    assert budget == top
    for before, after in zip(models[top].both(), paying.both(), strict=True):
        assert replace(after, steps=before.steps) == before
        assert after.steps == pytest.approx(before.steps / 2, abs=1)


def test_without_time_nothing_is_trained_and_that_is_said():
    lab = lab_of({})
    found = cross(lab, steady().rates, models_of(lab), KeptRuns(budgets_flops=(), at_equal_total=False))
    assert (found.points, found.best, found.undecided) == ((), None, True)
    assert "the time ran out" in found.sentence
    assert of_values(plain(found), StudySelection) == found


def test_runs_that_diverge_are_left_out_of_the_pairs():
    found = crossed_in({}, rate_penalty=0.0, diverges_above=1e-6, **NOISE)
    assert found.best is None
    assert {point.diverged for point in found.points} == {3}
    assert "no pair was trained to its end" in found.sentence
    assert of_values(plain(found), StudySelection) == found
    assert best_pair({}).undecided
