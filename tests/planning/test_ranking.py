"""The search over real shapes: budgets, the near-optimal band, bounds, and the crossover."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from sparsedial.law.law import Law
from sparsedial.planning import crossing
from sparsedial.planning.budget import Constraints
from sparsedial.planning.costs import Costs
from sparsedial.planning.crossing import race
from sparsedial.planning.ranking import binding_constraints, near_optimal, rank
from sparsedial.shape.counts import training_flops_per_token
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shapes import Shapes
from sparsedial.showing.words import crossing_words
from tests.machine.test_profile import profile_of

LADDER = Ladder(vocab_size=256, context=64)
DENSE = [LADDER.shape(width, 0) for width in (16, 24, 32, 48, 64, 96)]
SPARSE = [LADDER.shape(width, experts) for experts in (8, 32) for width in (16, 24, 32, 48, 64, 96)]
PROFILE = profile_of(0.0)


def law_with(mu: float) -> Law:
    values = {"e": 1.0, "a": 60.0, "b": 120.0, "alpha": 0.4, "beta": 0.37, "mu": mu}
    random = np.random.default_rng(0)
    samples = tuple(tuple(v * (1 + 0.01 * random.normal()) for v in values.values()) for _ in range(20))
    return Law(
        form="chinchilla_sparsity", coefficients=values, intervals={}, confidence=0.9, samples=samples, runs=40,
        rmse_log_loss=0.01, fitted_range={"flops": (1e10, 1e12)}, undetermined=(), seed=0,
    )  # fmt: skip


def ranked(law, shapes, currency="flops", budget=1e12):
    return rank(law, shapes, currency=currency, budget=budget, profile=PROFILE, batch=8, context=64, least_steps=50)


def test_every_answer_spends_the_budget_and_not_more():
    for answer in ranked(law_with(0.3), DENSE + SPARSE):
        cost = training_flops_per_token(answer.shape, 64) * answer.tokens
        assert 0.97e12 <= cost <= 1e12
    for answer in ranked(law_with(0.3), DENSE + SPARSE, "seconds", 60.0):
        assert PROFILE.seconds(answer.shape, answer.tokens, 8, 64).value == pytest.approx(60.0, rel=0.02)


def test_the_best_answer_equals_a_brute_force_over_the_shapes():
    law = law_with(0.3)
    answers = ranked(law, DENSE + SPARSE)
    losses = {
        shape: law.loss(**law.variables(shape, 1e12 / training_flops_per_token(shape, 64))) for shape in DENSE + SPARSE
    }
    assert answers[0].shape == min(losses, key=lambda shape: losses[shape])
    assert [a.predicted.mean for a in answers] == sorted(a.predicted.mean for a in answers)


def test_a_budget_that_buys_too_few_steps_has_no_answer():
    assert ranked(law_with(0.3), DENSE, budget=1e6) == []


def test_the_sparsest_level_is_named_as_the_bound_that_stopped_the_search():
    best = ranked(law_with(0.3), DENSE + SPARSE)[0].shape
    assert best.experts == 32
    assert any("experts=32" in bound for bound in binding_constraints(best, DENSE + SPARSE))


def test_the_near_optimal_band_holds_the_best():
    answers = ranked(law_with(0.02), DENSE + SPARSE)
    low, high = near_optimal(answers).sparsity
    assert low <= answers[0].shape.sparsity <= high


def cross(law, currency="seconds"):
    found = race(
        law,
        Shapes.of(DENSE + SPARSE),
        currency=currency,
        budgets=np.geomspace(0.1, 1e5, 25),
        costs=Costs(machine=PROFILE, batch=8, context=64),
        constraints=Constraints(least_tokens=1.0),
    )
    return found.crossover, found.crossover_reason


def test_sparse_begins_to_win_in_seconds_where_its_overhead_is_paid_back():
    found, reason = cross(law_with(0.12))
    assert reason is None
    assert found is not None
    assert 0.1 < found.value < 1e5
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize(
    ("fitted", "within"),
    [
        ({"flops": [1.0, 1e30]}, True),
        ({"flops": [1.0, 1e30], "tokens": [1.0, 10.0]}, False),
        ({"flops": [1.0, 1e3]}, False),
        ({}, None),
    ],
)
def test_a_crossover_in_seconds_is_inside_the_range_only_where_its_models_are(fitted, within):
    found, _ = cross(replace(law_with(0.12), fitted_range=fitted))
    assert found is not None
    assert found.within_fitted_range is within


@pytest.mark.parametrize(("below", "above"), [(0, 0), (4, 0), (0, 4), (4, 4)])
def test_the_interval_of_a_crossover_is_open_where_samples_cross_beyond_the_budgets(below, above):
    """The end of the search is no end of the interval, and a reader is told why there is none."""
    amounts, samples = np.array([1.0, 10.0, 100.0]), [[-1.0, 1.0, 2.0]] * (20 - below - above)
    gaps = np.array([[-1.0, 1.0, 2.0], *[[1.0] * 3] * below, *[[-1.0] * 3] * above, *samples]).T
    found, _ = crossing._judge(law_with(0.12), "flops", amounts, gaps, "widths 16 to 96")
    assert (found.low is None, found.high is None) == (below > 0, above > 0)
    said = crossing_words(found)
    assert ("20 % of the law's samples sparse wins at every budget looked at" in said) == (below > 0)
    assert ("20 % of the law's samples dense wins at the largest budget looked at" in said) == (above > 0)


def test_a_crossover_says_what_was_searched():
    found, _ = cross(law_with(0.12))
    assert found is not None
    assert found.searched == "widths 16 to 96, 100 ms to 27 h 46 min"
    assert "among widths 16 to 96" in str(cross(law_with(-0.2))[1])


def test_there_is_no_crossover_where_sparsity_does_not_help():
    found, reason = cross(law_with(-0.2))
    assert found is None
    assert reason is not None
    assert "dense is predicted to win" in reason
