"""Training: it learns, clips, ends when it diverges, and goes on bit for bit."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.model.transformer import initialise
from sparsedial.shape.ladder import Ladder
from sparsedial.store import RunStore, read_json
from sparsedial.sweep.execute import execute, finish, read_metrics
from sparsedial.text.sampler import Sampler
from sparsedial.training.loop import train_steps
from sparsedial.training.optimizer import make_optimizers
from sparsedial.training.recipe import Recipe
from sparsedial.training.run import Job
from sparsedial.training.step import read_balance

LADDER = Ladder(vocab_size=256, context=32)
RECIPE = Recipe(learning_rate=0.01, steps=40, batch=8, context=32)


def job_of(text, experts: int = 8, **changes) -> Job:
    return Job(
        shape=LADDER.shape(12, experts),
        recipe=replace(RECIPE, **changes),
        text_digest=text.digest,
        tokenizer=text.tokenizer.digest,
    )


@pytest.mark.parametrize("experts", [0, 8])
def test_a_tiny_model_learns(small_text, experts):
    model = initialise(LADDER.shape(16, experts), 0)
    losses = [step.loss for step in train_steps(model, make_optimizers(model, RECIPE), small_text, RECIPE)]
    assert len(losses) == 40
    assert losses[0] == pytest.approx(math.log(256), abs=0.3)
    assert losses[-1] < losses[0] - 1.5


@pytest.fixture
def killed(monkeypatch) -> None:
    """A run that is left saves nothing more, as one that was killed."""
    monkeypatch.setattr("sparsedial.sweep.execute._Live.leave", lambda *_, **__: None)


@pytest.mark.parametrize(
    ("stops", "optimizer"), [((17,), "adamw"), ((1, 2, 39), "adamw"), ((5, 20), "adamw"), ((3, 20), "muon")]
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(small_text, tmp_path: Path, killed, stops, optimizer):
    whole, parts = RunStore(tmp_path / "whole"), RunStore(tmp_path / "parts")
    job = job_of(small_text, optimizer=optimizer)
    expected = finish(execute(job, small_text, whole, keep_checkpoint=True)).record()
    done = 0
    for stop in stops:  # leave the generator as a kill would: the state on disk is all that stays
        list(islice(execute(job, small_text, parts, save_seconds=0.0), stop - done))
        done = stop - 1  # the state of the last step was not saved yet when the run was left
    record = finish(execute(job, small_text, parts, keep_checkpoint=True)).record()
    for name in ("validation_loss", "train_loss", "steps_done", "tokens", "hash"):
        assert record[name] == expected[name], name
    names = ("loss", "gradient_norm", "learning_rate")
    series = [[[line[name] for name in names] for line in read_metrics(store, job.hash)] for store in (whole, parts)]
    assert series[0] == series[1]
    weights = [(store.path(job.hash) / "checkpoint" / "model.safetensors").read_bytes() for store in (whole, parts)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(("stop", "saved"), [(17, 17), (41, 40)])  # in the middle, and while it is scored
def test_a_run_that_is_closed_goes_on_from_its_last_step(small_text, tmp_path: Path, stop, saved):
    job = job_of(small_text)
    expected = finish(execute(job, small_text, RunStore(tmp_path / "whole"))).record()
    parts = RunStore(tmp_path / "parts")
    steps = execute(job, small_text, parts)
    list(islice(steps, stop))
    steps.close()
    assert read_json(parts.unfinished(job.hash) / "state.json")["next_step"] == saved
    again = execute(job, small_text, parts)
    assert next(again).index == min(saved, 39)
    assert finish(again).record()["validation_loss"] == expected["validation_loss"]


@pytest.mark.parametrize(("sigmas", "saved"), [(8.0, 64), (0.0, None)])  # in a step, only a kept state is whole
def test_ctrl_c_in_a_step_leaves_a_whole_state_or_none(small_text, tmp_path: Path, monkeypatch, sigmas, saved):
    from sparsedial.training import step

    job, store, norm = job_of(small_text, steps=90, spike_sigmas=sigmas), RunStore(tmp_path), step.gradient_norm
    calls = []

    def stopped(gradients):
        calls.append(1)
        if len(calls) == 81:
            raise KeyboardInterrupt
        return norm(gradients)

    expected = finish(execute(job, small_text, RunStore(tmp_path / "whole"))).record()
    monkeypatch.setattr(step, "gradient_norm", stopped)
    with pytest.raises(KeyboardInterrupt):
        finish(execute(job, small_text, store))
    state = store.unfinished(job.hash) / "state.json"
    assert (read_json(state)["next_step"] if state.exists() else None) == saved
    assert finish(execute(job, small_text, store)).record()["validation_loss"] == expected["validation_loss"]


def test_a_damaged_state_starts_the_run_anew(small_text, tmp_path: Path):
    store, job = RunStore(tmp_path), job_of(small_text)
    list(islice(execute(job, small_text, store, save_seconds=0.0), 10))
    (state,) = (store.path(job.hash) / "unfinished").glob("*.safetensors")
    state.write_bytes(state.read_bytes()[:-100])
    first = next(iter(execute(job, small_text, store)))
    assert first.index == 0


def test_a_diverged_run_ends_early_and_is_kept_with_its_reason(small_text, tmp_path: Path):
    store, job = RunStore(tmp_path), job_of(small_text, learning_rate=1e6, clip=1e9)
    record = finish(execute(job, small_text, store)).record()
    assert record["status"] == "diverged"
    assert "step" in record["reason"]
    assert record["steps_done"] < 40
    assert record["validation_loss"] is None
    assert store.find(job.hash) is not None


def test_nan_in_a_weight_ends_the_run_with_a_reason(small_text):
    model = initialise(LADDER.shape(12, 0), 0)
    with torch.no_grad():
        model.norm_D[0] = float("nan")
    steps = list(train_steps(model, make_optimizers(model, RECIPE), small_text, RECIPE))
    assert len(steps) == 1
    assert math.isnan(steps[0].loss)


def test_a_text_smaller_than_a_batch_is_refused(small_text, tmp_path: Path):
    with pytest.raises(UserError, match="batch"):
        next(iter(execute(job_of(small_text, batch=100_000), small_text, RunStore(tmp_path))))


def test_the_hash_names_what_changes_the_numbers_and_nothing_else(small_text):
    job = job_of(small_text)
    assert job.hash == job_of(small_text).hash
    for other in (
        replace(job, threads=2),
        replace(job, device="cuda"),
        replace(job, text_digest="0"),
        replace(job, tokenizer="0"),
        replace(job, recipe=replace(job.recipe, seed=1)),
        replace(job, recipe=replace(job.recipe, dtype="bfloat16")),
        replace(job, shape=LADDER.shape(12, 16)),
    ):
        assert other.hash != job.hash


def test_the_schedule_rises_stays_and_falls():
    recipe = replace(RECIPE, steps=100)
    assert recipe.rate(0) == pytest.approx(0.01 / 5)
    assert recipe.rate(50) == 0.01
    assert recipe.rate(85) == pytest.approx(0.005)
    assert recipe.rate(99) == pytest.approx(0.01 / 30)
    assert recipe.bias_rate(10) == recipe.balance_rate
    assert recipe.bias_rate(99) == 0.0


def test_the_cosine_falls_to_a_tenth():
    recipe = replace(RECIPE, steps=100, schedule="cosine")
    assert recipe.rate(0) == pytest.approx(0.01 / 5)
    assert recipe.rate(52) == pytest.approx(0.01 * 0.55, rel=0.02)
    assert recipe.rate(99) == pytest.approx(0.001)
    assert recipe.trunk_steps == 0


def test_multi_token_prediction_weighs_less_late():
    """From two thirds of the run on, as DeepSeek-V3's."""
    recipe = replace(RECIPE, steps=100)
    assert [recipe.prediction_weight(step) for step in (0, 66, 67, 99)] == [0.3, 0.3, 0.1, 0.1]


@pytest.mark.parametrize(("step", "weight"), [(0, 0.3), (26, 0.3), (27, 0.1), (39, 0.1)])
def test_a_step_learns_from_multi_token_prediction_with_the_weight_of_its_place(small_text, step, weight):
    """Its gradient is that of the loss with this weight, which falls after two thirds of the steps."""
    shape = replace(LADDER.shape(12, 8), mtp_layers=1)
    model, again = initialise(shape, 0), initialise(shape, 0)
    taken = next(train_steps(model, make_optimizers(model, RECIPE), small_text, RECIPE, start=step))
    sampler = Sampler(text=small_text, seed=RECIPE.seed, sequences=RECIPE.batch, context=RECIPE.context)
    ids = torch.from_numpy(sampler.batch(step))
    total, entropy = again.loss(ids, RECIPE.balance_weight, RECIPE.z_loss_weight, weight)
    total.backward()
    norm = torch.cat([parameter.grad.flatten() for parameter in again.parameters()]).norm()
    assert taken.gradient_norm == pytest.approx(float(norm), rel=1e-5)
    assert taken.loss == float(entropy)


@pytest.mark.parametrize("changes", [{"optimizer": "muon"}, {"schedule": "cosine"}, {"width_base": 8}])
def test_a_tiny_model_learns_by_every_recipe(small_text, changes):
    model, recipe = initialise(LADDER.shape(16, 8), 0), replace(RECIPE, **changes)
    losses = [step.loss for step in train_steps(model, make_optimizers(model, recipe), small_text, recipe)]
    assert losses[-1] < losses[0] - 1.2


def test_a_run_goes_on_from_the_trunk_of_a_shorter_one_bit_for_bit(small_text, tmp_path: Path):
    alone, shared = RunStore(tmp_path / "alone"), RunStore(tmp_path / "shared")
    short, long = (job_of(small_text, warmup_steps=4, steps=steps) for steps in (40, 100))
    assert short.trunk == long.trunk
    assert short.trunk != job_of(small_text, warmup_steps=5, steps=40).trunk
    expected = [finish(execute(job, small_text, alone)).record() for job in (short, long)]
    records = [finish(execute(job, small_text, shared, keep_trunk=True)).record() for job in (short, long)]
    assert [record["trunk_steps_shared"] for record in records] == [0, short.recipe.trunk_steps]
    assert records[0]["trunk"] == short.trunk
    for mine, theirs in zip(records, expected, strict=True):
        assert mine["validation_loss"] == theirs["validation_loss"]
        assert mine["hash"] == theirs["hash"]
        assert mine["trunk"] == short.trunk


@pytest.mark.parametrize("changes", [{"warmup_steps": 0}, {"schedule": "cosine"}, {"decay_share": 0.95}])
def test_a_run_that_shares_no_step_with_longer_ones_records_no_trunk(small_text, tmp_path: Path, changes):
    job = job_of(small_text, **{"steps": 10, "warmup_steps": 2, "warmup_share": 0.0, **changes})
    assert finish(execute(job, small_text, RunStore(tmp_path))).record()["trunk"] is None


def test_a_longer_trunk_than_a_run_has_is_not_taken(small_text, tmp_path: Path):
    store = RunStore(tmp_path)
    long, short = (job_of(small_text, warmup_steps=4, steps=steps) for steps in (100, 40))
    finish(execute(long, small_text, store, keep_trunk=True))
    assert finish(execute(short, small_text, store)).record()["trunk_steps_shared"] == 0


@pytest.mark.parametrize(
    ("harm", "at", "back_to", "experts"),
    [
        ("words that do not belong together", 80, 64, 0),
        ("words that do not belong together", 30, 0, 0),  # too early for a spike, yet worse than a uniform guess
        ("a gradient that is no number", 50, 0, 0),
        ("a gradient that is no number", 80, 64, 8),
    ],
)
def test_a_harmful_batch_is_undone_and_left_out(small_text, tmp_path: Path, monkeypatch, harm, at, back_to, experts):
    """The same run on a text that lacks the batch ends bit for bit as the one that had it."""
    from sparsedial.training import step as step_module

    job = job_of(small_text, experts, steps=120, spike_sigmas=6.0)
    clean, norm, poison = Sampler.batch, step_module.gradient_norm, harm == "a gradient that is no number"
    current = []

    def harmful(sampler, step, rank):
        current[:] = [step]
        ids = clean(sampler, step, rank)
        return np.random.default_rng(0).permuted(ids % 7 * 36) if step == at and not poison else ids

    def without(sampler, step, rank):
        return clean(sampler, step + (step >= at), rank)

    monkeypatch.setattr(Sampler, "batch", harmful)
    if poison:
        monkeypatch.setattr(step_module, "gradient_norm", lambda given: math.nan if current == [at] else norm(given))
    record = finish(execute(job, small_text, RunStore(tmp_path / "harmed"))).record()
    monkeypatch.setattr(Sampler, "batch", without)
    monkeypatch.setattr(step_module, "gradient_norm", norm)
    expected = finish(execute(job, small_text, RunStore(tmp_path / "without"))).record()
    (event,) = record["events"]
    assert (event["step"], event["batch_skipped"], event["back_to_step"]) == (at, at, back_to)
    assert expected["events"] == []
    assert record["validation_loss"] == expected["validation_loss"]
    lines = read_metrics(RunStore(tmp_path / "harmed"), job.hash)
    assert [line["index"] for line in lines] == list(range(120))


def test_a_run_left_after_a_rollback_knows_what_it_skipped(small_text, tmp_path: Path, monkeypatch):
    from sparsedial.training import step

    job, norm, calls = job_of(small_text, steps=120, spike_sigmas=6.0), step.gradient_norm, []

    def broken_once(gradients):
        calls.append(1)
        return math.nan if len(calls) == 71 else norm(gradients)

    monkeypatch.setattr(step, "gradient_norm", broken_once)
    store = RunStore(tmp_path)
    run = execute(job, small_text, store)
    list(islice(run, 75))  # beyond the rollback of step 70 to 64, before the next state is kept
    run.close()
    progress = read_json(store.unfinished(job.hash) / "state.json")["progress"]
    assert (progress["next_step"], progress["skipped"]) == (64, [70])
    assert [event["step"] for event in progress["events"]] == [70]


def test_a_guarded_run_that_was_left_ends_as_the_whole_one(small_text, tmp_path: Path, killed):
    job = job_of(small_text, steps=150, spike_sigmas=8.0)
    whole, parts = RunStore(tmp_path / "whole"), RunStore(tmp_path / "parts")
    expected = finish(execute(job, small_text, whole)).record()
    list(islice(execute(job, small_text, parts, save_seconds=0.0), 100))
    state = read_json(parts.unfinished(job.hash) / "state.json")
    assert state["next_step"] == 64  # states lie where a spike may go back to
    assert finish(execute(job, small_text, parts)).record()["validation_loss"] == expected["validation_loss"]


def test_balance_is_read_along_the_run(small_text, tmp_path: Path):
    store, job = RunStore(tmp_path), job_of(small_text)
    finish(execute(job, small_text, store))
    lines = read_metrics(store, job.hash)
    assert {"max_over_mean", "dead_experts", "entropy", "bias_drift"} <= set(lines[0])
    assert lines[0]["bias_drift"] == 0
    assert lines[-1]["bias_drift"] > 0


@pytest.mark.parametrize("worst", [0, 1])
def test_the_balance_read_is_that_of_the_worst_router_and_the_farthest_bias(worst):
    model = initialise(replace(LADDER.shape(12, 8), layers=2), 0)
    layers = model.sparse_feed_forwards
    layers[worst].load_E[:] = torch.tensor([4, 4, 0, 2, 2, 2, 1, 1])
    layers[1 - worst].load_E[:] = 2
    layers[1 - worst].bias_E[3] = -0.7
    layers[worst].bias_E[5] = 0.4
    balance = read_balance(model)
    assert (balance["max_over_mean"], balance["dead_experts"]) == (2.0, 1)
    assert 0 < balance["entropy"] < 1
    assert balance["bias_drift"] == pytest.approx(0.7)
    assert read_balance(initialise(LADDER.shape(12, 0), 0)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 0},
        {"steps": 0},
        {"dtype": "int8"},
        {"decay_share": 0.99},
        {"optimizer": "sgd"},
        {"schedule": "step"},
        {"warmup_steps": 40},
        {"learning_rate": float("inf")},
        {"steps": 10**12},
        {"beta1": 1.5},
        {"seed": -1},
        {"seed": 2**63},
        {"schedule": "cosine", "warmup_share": 1, "decay_share": 0},
    ],
)
def test_impossible_recipes_are_refused(changes):
    with pytest.raises(UserError, match="recipe"):
        replace(RECIPE, **changes)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, 1e99])
@pytest.mark.parametrize("name", [field.name for field in fields(Recipe) if field.type in ("float", "int")])
def test_no_number_of_a_recipe_is_negative_infinite_or_none(name, value):
    with pytest.raises(UserError, match=f"recipe: {name}="):
        replace(RECIPE, **{name: value})


@pytest.mark.parametrize("changes", [{"decay_share": 0, "warmup_share": 1}, {"warmup_steps": 39}, {"seed": 2**62 - 1}])
def test_recipes_on_the_bounds_have_a_rate_at_every_step(changes):
    for schedule in ("wsd", "cosine") if "warmup_share" not in changes else ("wsd",):
        recipe = replace(RECIPE, schedule=schedule, **changes)
        assert all(0 < recipe.rate(step) <= recipe.learning_rate for step in range(recipe.steps))


@pytest.mark.parametrize(
    ("shape", "context", "says"),
    [({"mtp_layers": 2}, 2, "2 multi-token predictions"), ({}, 33, "more than the 32 positions")],
)
def test_a_context_that_does_not_fit_the_shape_is_refused(shape, context, says):
    job = Job(shape=LADDER.shape(12, 0), recipe=RECIPE, text_digest="", tokenizer="")
    with pytest.raises(UserError, match=says):
        replace(job, shape=replace(job.shape, **shape), recipe=replace(RECIPE, context=context))
    replace(job, shape=replace(job.shape, mtp_layers=2), recipe=replace(RECIPE, context=3))
