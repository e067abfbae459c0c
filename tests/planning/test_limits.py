"""A law that was fitted to a small table plans what its runs can tell, and a plan is possible."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars
import pytest
from msgspec.structs import replace

import sparsedial
from benchmarks.replay import RECORD as REFERENCE_STUDY
from sparsedial.errors import UserError
from sparsedial.law.counting import embedding_share
from sparsedial.machine.devices import DEVICES
from sparsedial.planning.costs import Costs
from sparsedial.planning.warnings import beyond_profile, fewer_threads
from tests.machine.test_profile import profile_of

BUDGETS = (1e18, 4e18, 1.6e19, 6e19)
TRUTH = {"e": 1.7, "a": 400.0, "b": 1500.0, "alpha": 0.34, "beta": 0.36, "mu": 0.12}


def run(size: float, tokens: float, ratio: float = 1.0) -> dict[str, float]:
    """A run of a known law, exact."""
    loss = 1.7 + 400 / (size**0.34 * ratio**0.12) + 1500 / tokens**0.36
    total = size * (0.3 + 0.7 * ratio)
    return {"loss": loss, "total_parameters": total, "active_parameters": size, "tokens": tokens,
            "flops": 6 * size * tokens, "sparsity": 1 - 1 / ratio, "experts": ratio}  # fmt: skip


def iso_flop(ratios: tuple[float, ...]) -> list[dict[str, float]]:
    sizes = [(budget, math.sqrt(budget / 120) * step) for budget in BUDGETS for step in (0.25, 0.5, 1, 2, 4)]
    return [run(size, budget / 6 / size, ratio) for budget, size in sizes for ratio in ratios]


def law_of(folder: Path, rows: list[dict[str, float]], form: str, leave_out: tuple[str, ...] = (), **settings) -> str:
    """The file of a law that was fitted to such runs, with one percent of noise."""
    random = np.random.default_rng(1)
    noisy = [{**row, "loss": row["loss"] * math.exp(random.normal(0, 0.003))} for row in rows]
    polars.DataFrame(noisy).drop(leave_out).write_csv(folder / "runs.csv")
    fitted = sparsedial.fit(table=folder / "runs.csv", form=(form,), out=folder / "fitted.json", **settings)
    assert fitted.refused is None
    return str(folder / "fitted.json")


@pytest.mark.parametrize(
    ("form", "leave_out"), [("chinchilla", ("sparsity", "experts", "active_parameters")), ("chinchilla_sparsity", ())]
)
def test_a_law_from_dense_runs_plans_dense_models(tmp_path, form, leave_out):
    plan = sparsedial.plan(flops=3e19, law=law_of(tmp_path, iso_flop((1.0,)), form, leave_out))
    assert plan.shape.experts == 0
    assert plan.near_optimal.sparsity == (0, 0)
    assert "dense models alone" in plan.marks[0]
    assert plan.winner is None
    assert plan.crossover_reason == plan.gap_to_dense_reason == plan.marks[0]
    with pytest.raises(UserError, match=r"no shape respects sparsity=0\.75"):
        sparsedial.plan(flops=3e19, sparsity=0.75, law=str(tmp_path / "fitted.json"))


@pytest.mark.parametrize(("ratio", "sparsity"), [(16.0, 0.9375), (10.0, 0.9), (10 / 3, 0.7)])
def test_a_law_from_one_sparsity_plans_that_sparsity(tmp_path, ratio, sparsity):
    plan = sparsedial.plan(flops=3e19, law=law_of(tmp_path, iso_flop((ratio,)), "chinchilla_sparsity"))
    assert plan.shape.sparsity == pytest.approx(sparsity)
    assert plan.dense_rival is None
    assert f"sparsity {sparsity:g}" in plan.marks[0]


@pytest.mark.parametrize("form", ["clark", "chinchilla"])
def test_a_law_from_one_number_of_tokens_plans_at_that_number(tmp_path, form):
    rows = [run(size, 2e10, ratio) for size in np.geomspace(5e7, 5e9, 12) for ratio in (1.0, 4.0, 16.0)]
    rows = [row for row in rows if form == "clark" or row["sparsity"] == 0]
    leave_out = ("sparsity", "flops") if form == "clark" else ("sparsity", "experts", "flops", "active_parameters")
    plan = sparsedial.plan(flops=1e20, law=law_of(tmp_path, rows, form, leave_out))
    assert plan.tokens == pytest.approx(2e10, rel=1e-6)
    assert plan.costs.flops <= 1.03e20
    assert any("20B tokens" in line for line in plan.marks)
    assert plan.shape.sparsity <= 0.9375
    with pytest.raises(UserError, match="too little for 20B tokens"):
        sparsedial.plan(flops=1e14, law=str(tmp_path / "fitted.json"))


def test_a_law_from_one_ratio_of_tokens_to_parameters_plans_that_ratio_or_refuses(tmp_path):
    rows = [run(size, 20 * size) for size in np.geomspace(5e7, 5e9, 14)]
    law = law_of(tmp_path, rows, "chinchilla", ("flops", "sparsity", "experts", "active_parameters"))
    plan = sparsedial.plan(flops=1e20, law=law)
    assert 20 / 1.25 < plan.tokens / plan.total_parameters < 20 * 1.25
    assert "20 tokens per parameter" in " ".join(plan.marks)


def test_runs_of_one_total_size_are_planned_at_that_size_and_inside_their_sparsities(tmp_path):
    sparsities, tokens = (0.625, 0.75, 0.875, 0.95, 0.989), (2e9, 5e9, 1e10, 2e10)
    rows = [
        {**run(2.15e9 * (0.15 + 0.85 * (1 - s)), d, 1 / (1 - s)), "total_parameters": 2.15e9}
        for s in sparsities
        for d in tokens
    ]
    law = law_of(tmp_path, rows, "sparsity_by_tokens", ("flops", "experts"))
    plan = sparsedial.plan(flops=2.8e19, max_total_parameters=2.15e9, law=law)
    assert 0.625 <= plan.shape.sparsity <= 0.989
    assert plan.total_parameters >= 2.15e9 / 1.2
    assert plan.tokens < 4e10


def test_more_experts_than_the_runs_had_are_not_recommended_first(tmp_path):
    law = law_of(tmp_path, iso_flop((1.0, 2.0, 4.0)), "chinchilla_sparsity")
    plan = sparsedial.plan(flops=3e19, law=law)
    assert plan.shape.sparsity <= 0.875
    assert any("not recommended first" in line for line in plan.binding_constraints)
    asked = sparsedial.plan(flops=3e19, law=law, sparsity=0.96875)
    assert asked.extrapolation["experts"] == pytest.approx(8)
    assert any(line.startswith("extrapolation: sparsity 8 times") for line in asked.marks)


def test_an_answer_far_beyond_the_runs_is_marked_with_the_interval_of_the_samples(tmp_path):
    law = law_of(tmp_path, iso_flop((1.0, 2.0, 4.0, 8.0)), "chinchilla_sparsity")
    near, far = (sparsedial.plan(flops=flops, law=law) for flops in (1e20, 1e23))
    assert not near.extrapolation
    assert not near.marks
    assert far.extrapolation["flops"] == pytest.approx(1e23 / 6e19, rel=0.01)
    low, high = far.predicted_loss.low, far.predicted_loss.high
    assert any(f"the loss is {low:.3f} to {high:.3f}" in line for line in far.marks)
    assert near.winner == "sparse"
    assert near.gap_to_dense.low > 0
    sampled = near.near_optimal.sampled
    assert sampled.sparsity[0] <= near.shape.sparsity <= sampled.sparsity[1]
    assert sampled.total_parameters[0] <= near.total_parameters <= sampled.total_parameters[1]


def test_a_tie_within_the_error_is_undecided(tmp_path):
    rows = [{**row, "loss": run(row["active_parameters"], row["tokens"])["loss"]} for row in iso_flop((1.0, 2.0, 4.0))]
    plan = sparsedial.plan(flops=3e19, law=law_of(tmp_path, rows, "chinchilla_sparsity"))
    assert plan.winner == "undecided"
    assert plan.gap_to_dense.low <= 0 <= plan.gap_to_dense.high
    assert plan.crossover is None or plan.crossover.low is None or plan.crossover.high is None


@pytest.mark.parametrize(
    ("seconds", "winner"), [(1.5, "dense"), (3.0, "undecided"), (4.0, "undecided"), (8.0, "sparse")]
)
def test_within_the_interval_of_the_crossover_the_winner_is_undecided_and_outside_it_is_not(seconds, winner):
    plan = sparsedial.plan(seconds=seconds, law=str(REFERENCE_STUDY))
    assert plan.crossover is not None
    low, high = plan.crossover.low, plan.crossover.high
    assert low is not None
    assert high is not None
    assert (winner == "undecided") == (low <= seconds <= high)
    assert plan.winner == winner


@pytest.mark.parametrize(("context", "noted"), [(64, False), (128, False), (256, True), (16, True)])
def test_seconds_for_another_context_than_the_profiles_are_an_extrapolation(context, noted):
    lines = beyond_profile(Costs(machine=profile_of(0.0), context=context))
    assert bool(lines) == noted
    assert all(f"profile --context {context}" in line for line in lines)
    assert not beyond_profile(Costs(machine=DEVICES["h100"], context=context))


@pytest.mark.parametrize(
    ("given", "noted"),
    [({}, False), ({"price": 2.0}, True), ({"devices": 8}, True), ({"price": 2.0, "device": "h100"}, False)],
)
def test_devices_and_a_price_without_a_machine_change_nothing_and_that_is_said(given, noted):
    plan = sparsedial.plan(flops=1e20, **given)
    assert any("no machine was named" in line for line in plan.warnings) == noted


@pytest.mark.parametrize(("device", "cores", "noted"), [("cpu", 2, True), ("cpu", 1, False), ("cuda", 2, False)])
def test_seconds_of_one_thread_are_called_so_where_a_training_has_more(device, cores, noted):
    profile = profile_of(0.0)
    machine = replace(profile.machine, cores=cores)
    lines = fewer_threads(Costs(machine=replace(profile, machine=machine, device=device), context=64))
    assert [line.split(";")[0] for line in lines] == [
        "seconds and joules are those of 1 thread, as the profile's steps"
    ] * noted


def test_sizes_without_embeddings_are_asked_without_them(tmp_path):
    rows = [
        {"N_nonemb": row["total_parameters"], "loss": row["loss"], "tokens": row["tokens"]} for row in iso_flop((1.0,))
    ]
    law = law_of(tmp_path, rows, "chinchilla", columns={"total_parameters": "N_nonemb"})
    bare = sparsedial.plan(flops=3e18, law=law)
    law = law_of(tmp_path, rows, "chinchilla", columns={"total_parameters": "N_nonemb"}, counting="with-embeddings")
    assert sparsedial.plan(flops=3e18, law=law).total_parameters < bare.total_parameters


def test_a_model_that_is_mostly_embeddings_is_marked():
    plan = sparsedial.plan(flops=1e18, max_total_parameters=1e9, vocab_size=256_000)
    assert embedding_share(plan.shape) > 0.5
    assert any("embedding tables of 256,000 tokens" in line for line in plan.marks)
    assert not any("embedding" in line for line in sparsedial.plan(flops=1e21, max_total_parameters=3e10).marks)


@pytest.mark.parametrize("budget", [{"flops": 1e21, "max_total_parameters": 30e9}, {"seconds": "10d"}])
@pytest.mark.parametrize("devices", [1, 8])
def test_a_plan_fits_the_memory_of_its_devices(budget, devices):
    plan = sparsedial.plan(device="h100", devices=devices, **budget)
    assert plan.costs.memory_bytes <= devices * 80e9
    if budget.get("max_total_parameters") is None or devices == 1:
        assert any("needs" in line and "such devices" in line for line in plan.binding_constraints)


def test_a_loss_that_needs_more_devices_says_how_many():
    with pytest.raises(UserError, match="or more to train") as error:
        sparsedial.plan(target_loss=1.9, device="t4")
    count = int("".join(filter(str.isdigit, str(error.value.hint))))
    plan = sparsedial.plan(target_loss=1.9, device="t4", devices=count)
    assert plan.costs.memory_bytes <= 16e9 * count
    with pytest.raises(UserError):
        sparsedial.plan(target_loss=1.9, device="t4", devices=count - 1)


@pytest.mark.parametrize(
    ("flops", "total", "active", "sparsity"),
    [
        (3.29e24, 671e9, 37e9, 0.96875),  # DeepSeek-V3: 256 experts, 8 a token
        (3.03e24, 1.04e12, 32.6e9, 0.984375),  # Kimi-K2: 384, 8
        (3.98e22, 6.9e9, 1.3e9, 0.875),  # OLMoE: 64, 8
        (7.1e23, 30.5e9, 3.3e9, 0.9375),  # Qwen3-30B-A3B: 128, 8
    ],
)
def test_with_both_sizes_bounded_the_sparsity_is_the_labs(flops, total, active, sparsity):
    plan = sparsedial.plan(flops=flops, max_total_parameters=total, max_active_parameters=active)
    assert plan.shape.sparsity == sparsity


# Abnar et al. 2025: at a bounded size the best sparsity rises with it and falls with compute.
CLAIMED = {
    3e8: (0.75, 0.5, 0.0),
    1e9: (0.9375, 0.875, 0.5),
    3e9: (0.96875, 0.9375, 0.75),
    1e10: (0.984375,) * 2 + (0.9375,),
}


@pytest.mark.parametrize("total", CLAIMED)
def test_the_best_sparsity_rises_with_size_and_falls_with_compute(total):
    found = tuple(
        sparsedial.plan(flops=flops, max_total_parameters=total).shape.sparsity for flops in (3e19, 1e20, 1e21)
    )
    assert found == CLAIMED[total]


def test_free_parameters_run_to_the_sparsest_that_the_law_was_checked_at():
    plan = sparsedial.plan(flops=1e20)
    assert plan.shape.sparsity == 0.984375
    assert any(line.startswith("the law's runs, sparsity") for line in plan.binding_constraints)
