"""A printed plan begins with the best sparsity, then sparse against dense, then what to do next."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from msgspec.structs import replace

from benchmarks.replay import RECORD as REFERENCE_STUDY
from sparsedial.cli.plan_table import plan_table
from sparsedial.records.plan import Plan, read_plan
from sparsedial.verbs.plan.plan import PlanSettings, plan


def rows(found: Plan) -> dict[str, list[str]]:
    """The lines of a table under their heads."""
    table: dict[str, list[str]] = {}
    head, lines = "", plan_table(found).splitlines()
    width = max(len(name) for name in ("sparse or dense", *(f"by {row.law}" for row in found.other_laws)))
    for line in lines:
        head = line[:width].strip() or head
        table.setdefault(head, []).append(line[width:].strip())
    return table


def test_the_answer_stands_first_then_sparse_or_dense_then_what_to_do_next():
    table = rows(plan(PlanSettings(flops=1e20)))
    assert list(table)[:3] == ["answer", "sparse or dense", "next"]
    assert table["answer"][0].startswith("sparsity 0.98")
    assert "experts" in table["answer"][0]
    assert table["next"][0].startswith("sparsedial study")


def test_a_dense_answer_is_said_once():
    answer = rows(plan(PlanSettings(flops=1e18, max_total_parameters=1e9, vocab_size=256_000)))["answer"][0]
    assert answer.startswith("a dense model is best: width")


def test_an_extrapolation_is_said_with_the_answer():
    found = plan(PlanSettings(seconds=3600, device="h100", max_total_parameters=1e9))
    assert found.marks
    assert rows(found)["answer"][-1].startswith("extrapolation: FLOPs")


def test_the_sparsest_model_considered_is_said_to_be_an_end():
    found = plan(PlanSettings(flops=1e20, max_experts=64, top_k=8))
    assert any(bound.startswith("max_experts=64") for bound in found.binding_constraints)
    assert rows(found)["answer"][1] == "no model of more experts was considered, so the best sparsity may lie beyond"
    edge = "experts/top_k=8: the most that was considered"
    said = rows(replace(found, binding_constraints=(edge, *found.binding_constraints)))["answer"][1]
    assert said == "no sparser model was considered, so the best sparsity may lie beyond"


@pytest.mark.parametrize(
    ("law", "runs"), [("chinchilla/besiroglu", "were dense"), ("krajewski", "had sparsity 0.9844")]
)
def test_a_law_of_one_sparsity_says_that_it_cannot_tell_which_is_best(law: str, runs: str):
    found = plan(PlanSettings(flops=1e21, law=law))
    table, text = rows(found), plan_table(found)
    assert found.best_sparsity_reason is not None
    assert table["answer"][0].startswith(f"which sparsity is best is not known: all runs of this law {runs}")
    assert "sparse or dense" not in table
    assert "is best:" not in text
    assert not table["near-optimal"][0].startswith("sparsity")
    assert text.count(found.best_sparsity_reason) == 1


def test_where_one_sparsity_is_allowed_none_is_called_the_best():
    table = rows(plan(PlanSettings(flops=1e20, sparsity=0.75)))
    assert table["answer"][0].startswith("which sparsity is best is not known: only sparsity 0.75 was allowed")


def test_a_loss_no_better_than_a_guess_is_no_answer():
    found = plan(PlanSettings(flops=1e14))
    table = rows(found)
    assert found.predicted_loss.mean > math.log(50432)
    assert table["answer"][0].startswith("which sparsity is best is not known: the predicted loss, 17.222 nats, is no")
    assert "sparse or dense" not in table
    assert plan_table(found).count("no better than a guess") == 1
    assert "no better than a guess" not in plan_table(plan(PlanSettings(flops=1e20)))


def test_what_to_do_next_names_the_file_that_was_written(tmp_path: Path):
    study, out = str(REFERENCE_STUDY), tmp_path / "my plan.json"
    assert "train PLAN " in rows(plan(PlanSettings(flops=1e12, law=study)))["next"][0]
    assert f"train '{out}' --text" in rows(plan(PlanSettings(flops=1e12, law=study, out=out)))["next"][0]
    assert read_plan(out)[0].out is None


def test_a_target_loss_answers_with_what_each_side_costs_and_the_factor():
    found = plan(PlanSettings(target_loss=2.2, device="h100", devices=8, price=2.5))
    table, rival = rows(found), found.dense_rival
    assert rival is not None
    assert found.cost == pytest.approx(found.costs.flops)
    assert rival.cost == pytest.approx(rival.costs.flops)
    said = table["sparse or dense"][0]
    assert f"{rival.cost / found.cost:.3g} times" in said
    assert "$" in said
    assert not {"crossover", "near-optimal"} & set(table)
    assert "nats better" not in plan_table(found)


def test_money_and_energy_have_the_range_that_time_has_and_stated_watts_are_marked():
    found = plan(PlanSettings(seconds=3600, device="h100", price=0.1, max_total_parameters=1e9))
    costs, table = found.costs, rows(found)
    for value in ("joules", "dollars"):
        for end in ("low", "high"):
            ratio = getattr(costs, f"{value}_{end}") / getattr(costs, value)
            assert ratio == pytest.approx(getattr(costs, f"seconds_{end}") / costs.seconds)
    assert costs.joules_basis == "estimated"
    assert table["energy"][0].endswith("estimated from stated watts")
    assert table["money"][0].startswith("$0.10 ($0.0")
