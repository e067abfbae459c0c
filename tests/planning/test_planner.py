"""A plan respects its bounds, names those that bind, and answers in any currency."""

from __future__ import annotations

import numpy as np
import pytest

from sparsedial.errors import UserError
from sparsedial.law import published
from sparsedial.law.literature import PUBLISHED
from sparsedial.machine.devices import DEVICES, find_device
from sparsedial.planning.answer import answer
from sparsedial.planning.budget import Budget, Constraints
from sparsedial.planning.candidates import candidates
from sparsedial.planning.costs import Costs
from sparsedial.planning.planner import search
from sparsedial.shape.counts import training_flops_per_token

SHAPES = candidates(vocab_size=50_432, context=2048)
H100 = Costs(machine=DEVICES["h100"], devices=8, dollars_per_hour=2.0, context=2048)


def planned(value: float = 1e21, currency: str = "flops", law: str = "abnar", costs: Costs = H100, **bounds):
    return answer(
        published(law),
        law,
        SHAPES,
        Budget(currency=currency, value=value),
        Constraints(**bounds),
        costs,
        f"{law}: {PUBLISHED[law].misleads}",
    )


def test_a_plan_spends_its_budget_and_respects_its_bound():
    plan = planned(max_total_parameters=30e9)
    assert plan["costs"]["flops"] == pytest.approx(1e21, rel=1e-3)
    assert plan["total_parameters"] <= 30e9
    assert "max_total_parameters=3e+10" in plan["binding_constraints"]


def test_the_same_money_in_another_currency_buys_the_same_model():
    plan = planned(max_total_parameters=30e9)
    for currency in ("seconds", "joules", "dollars"):
        again = planned(plan["costs"][currency], currency, max_total_parameters=30e9)
        assert again.shape.experts > 0
        assert again["costs"][currency] == pytest.approx(plan["costs"][currency], rel=1e-3)
        assert again["predicted_loss"]["mean"] <= plan["predicted_loss"]["mean"] + 1e-6


def test_no_candidate_beats_the_answer_by_brute_force():
    law, costs = published("abnar"), Costs(machine=None, context=2048)
    found = search(law, SHAPES, Budget(currency="flops", value=1e20), Constraints(max_total_parameters=5e9), costs)
    best = found.best()
    random = np.random.default_rng(0).choice(len(SHAPES), 300, replace=False)
    for place in random:
        shape = SHAPES[int(place)]
        tokens = 1e20 / training_flops_per_token(shape, 2048)
        variables = law.variables(shape, tokens)
        if variables["total_parameters"] <= 5e9 and tokens >= 1e6:
            assert law.loss(**variables) >= found.loss[best] - 1e-12


@pytest.mark.parametrize(
    ("bounds", "check"),
    [
        ({"max_experts": 16}, lambda plan: plan.shape.experts <= 16),
        ({"top_k": 1}, lambda plan: plan.shape.top_k in (0, 1)),
        ({"max_active_parameters": 3e8}, lambda plan: plan["active_parameters"] <= 3e8),
        ({"serving_memory_bytes": 24e9}, lambda plan: plan["costs"]["serving_memory_bytes"] <= 24e9),
        ({"training_memory_bytes": 640e9}, lambda plan: plan["costs"]["memory_bytes"] <= 640e9),
        ({"data_tokens": 5e9}, lambda plan: plan["tokens"] <= 20e9 * 1.001),
        ({"min_decode_tokens_per_second": 2000.0}, lambda plan: plan["active_parameters"] < 9e8),
    ],
)
def test_every_bound_is_respected_and_named_where_it_binds(bounds, check):
    plan = planned(**bounds)
    assert check(plan)
    name = next(iter(bounds)).removeprefix("min_").removeprefix("training_")
    assert any(bound.startswith(name) for bound in plan["binding_constraints"])


def test_inference_over_the_life_makes_the_model_smaller():
    plain, served = planned(), planned(inference_tokens=1e12)
    assert served["active_parameters"] < plain["active_parameters"]
    assert served["costs"]["flops"] < 1e21


def test_a_target_loss_is_reached_as_cheaply_as_can_be():
    budget = Budget(currency="flops", value=None, target_loss=2.2)
    plan = answer(published("abnar"), "abnar", SHAPES, budget, Constraints(max_total_parameters=1e10), H100)
    assert plan["predicted_loss"]["mean"] == pytest.approx(2.2, abs=1e-3)
    more = planned(plan["costs"]["flops"], max_total_parameters=1e10)
    assert more["predicted_loss"]["mean"] == pytest.approx(2.2, abs=2e-3)


def test_a_published_law_gets_no_invented_interval():
    loss = planned()["predicted_loss"]
    assert loss["low"] is None
    assert loss["interval_basis"] is None
    assert "published" in loss["interval_reason"]


def test_other_laws_stand_beside_the_answer_with_what_each_held_fixed():
    rows = planned(max_total_parameters=30e9)["other_laws"]
    assert {row["law"] for row in rows} >= {"chinchilla/besiroglu", "ludziejewski", "clark/hash", "ling"}
    assert all(row["held_fixed"] for row in rows)
    assert "zhao" not in {row["law"] for row in rows}


def test_a_law_without_tokens_speaks_only_of_its_own_number():
    plan = planned(law="clark/s-base", value=1e21)
    assert plan["tokens"] == 130e9
    assert plan["costs"]["flops"] <= 1.03e21


def test_a_dense_law_answers_dense():
    plan = planned(law="chinchilla/besiroglu")
    assert plan.shape.experts == 0
    assert 10 < plan["tokens"] / plan["total_parameters"] < 40  # Chinchilla's twenty


def test_data_that_end_long_before_the_budget_are_said():
    lines = planned(1e21, data_tokens=1e6)["warnings"]
    assert any("the data end long before the budget" in line for line in lines)
    assert any("far fewer than any model is trained with" in line for line in lines)
    assert not any("long before" in line for line in planned(1e21, data_tokens=1e12)["warnings"])


def test_an_answer_outside_the_fitted_range_says_by_how_much():
    assert any(line.startswith("FLOPs are 10,000 times above the range") for line in planned(1e25)["warnings"])
    marks = planned(1e15, costs=Costs(machine=None))["marks"]
    assert any("FLOPs 30,000 times below its runs (3e19 to 1e21)" in line for line in marks)


@pytest.mark.parametrize(
    ("bounds", "says"),
    [
        ({"max_total_parameters": 1e3}, "no shape respects max_total_parameters"),
        ({"top_k": 9, "max_experts": 4}, "contradict"),
        ({"max_active_parameters": 2e9, "max_total_parameters": 1e9}, "contradict"),
    ],
)
def test_bounds_that_no_shape_respects_are_named(bounds, says):
    with pytest.raises(UserError, match=says):
        planned(**bounds)


def test_money_needs_a_price_and_seconds_need_a_machine():
    with pytest.raises(UserError, match="price"):
        planned(100.0, "dollars", costs=Costs(machine=DEVICES["h100"]))
    with pytest.raises(UserError, match="machine"):
        planned(100.0, "seconds", costs=Costs(machine=None))


def test_devices_are_found_by_any_spelling():
    assert find_device("NVIDIA H100-SXM").name == "h100"
    with pytest.raises(UserError) as error:
        find_device("h1000")
    assert "h100" in str(error.value.hint)


def test_the_shape_of_a_plan_is_a_shape():
    assert planned().shape.experts > 0
