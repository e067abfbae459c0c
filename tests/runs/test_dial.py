"""A run with a dial: resumed bit for bit, scored at each number, and kept with what it was trained for."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.evaluation.loss import evaluate_text
from sparsedial.model.checkpoint import load, model_of
from sparsedial.model.reading import read_checkpoint
from sparsedial.records.recipe import RECIPE_VERSION
from sparsedial.records.record import read
from sparsedial.records.run import Run
from sparsedial.records.trained_for import TrainedFor, trained_for
from sparsedial.runs.execute import execute
from sparsedial.runs.job import Job
from sparsedial.runs.run_store import RunStore
from sparsedial.shape.config import load_config
from sparsedial.shape.counts import active_parameters
from sparsedial.shape.hugging_face.values import Config
from sparsedial.training import dial, loop
from tests.model.test_families import theirs_from
from tests.runs.test_execute import killed, read_metrics  # noqa: F401  # a fixture
from tests.runs.tiny import LADDER, RECIPE, finish, job_of

NUMBERS = (1, 2, 4)


def dialled(text, by: str = "step", numbers: tuple[int, ...] = NUMBERS, **changes) -> Job:
    job = job_of(text, **changes)
    shape = replace(job.shape, top_k=numbers[-1])
    return replace(job, shape=shape, dial=TrainedFor(top_k_experts=numbers, by=by))


@pytest.mark.parametrize("by", ["step", "layer"])
@pytest.mark.usefixtures("killed")
def test_a_resumed_run_with_a_dial_equals_an_uninterrupted_one_bit_for_bit(small_text, tmp_path: Path, by):
    whole, parts = RunStore(tmp_path / "whole"), RunStore(tmp_path / "parts")
    job, done = dialled(small_text, by), 0
    expected = finish(execute(job, small_text, whole, keep_checkpoint=True))
    for stop in (5, 17, 38):  # nothing that was drawn is kept, as in a new process
        dial._drawn.cache_clear()
        torch.manual_seed(stop)
        list(islice(execute(job, small_text, parts, save_seconds=0.0), stop - done))
        done = stop - 1
    record = finish(execute(job, small_text, parts, keep_checkpoint=True))
    assert record.dial_losses == expected.dial_losses
    series = [
        [(line["loss"], line["gradient_norm"]) for line in read_metrics(each, job.hash)] for each in (whole, parts)
    ]
    assert series[0] == series[1]
    weights = [(each.checkpoint(job.hash) / "model.safetensors").read_bytes() for each in (whole, parts)]
    assert weights[0] == weights[1]


def test_the_loss_at_each_number_is_that_of_the_checkpoint_with_an_edited_top_k(small_text, tmp_path: Path):
    store, job = RunStore(tmp_path), dialled(small_text)
    splits = ("validation", "test")
    record = finish(execute(job, small_text, store, splits=splits, keep_checkpoint=True))
    assert [one.top_k_experts for one in record.dial_losses] == [1, 2, 4]
    assert record.dial_losses[-1].validation_loss == record.validation_loss
    assert record.dial_losses[-1].test_bits_per_byte == record.test_bits_per_byte
    checkpoint = read_checkpoint(store.checkpoint(job.hash))
    for one in record.dial_losses:
        edited = replace(checkpoint.shape, top_k=one.top_k_experts)
        model = model_of(edited, checkpoint.tensors)
        assert one.active_parameters == active_parameters(edited)
        for split in splits:
            scored = evaluate_text(model, small_text, split, context=job.recipe.context)
            assert getattr(one, f"{split}_loss") == pytest.approx(scored.loss, rel=1e-6)
    assert len({one.validation_loss for one in record.dial_losses}) == 3
    assert read(store.path(job.hash) / "run.json", Run) == record


def test_a_split_that_was_not_scored_is_null_and_so_are_all_of_a_run_without_a_dial(small_text, tmp_path: Path):
    job = dialled(small_text)
    record = finish(execute(job, small_text, RunStore(tmp_path)))
    assert {one.test_loss for one in record.dial_losses} == {None}
    plain = finish(execute(job_of(small_text), small_text, RunStore(tmp_path)))
    assert (plain.dial, plain.dial_losses, plain.start) == (None, None, None)
    lost = finish(execute(dialled(small_text, learning_rate=1e6, clip=1e9), small_text, RunStore(tmp_path)))
    assert (lost.status, lost.dial_losses) == ("diverged", None)


@pytest.mark.parametrize("family", ["glm4_moe", "sparsedial"])
def test_the_checkpoint_says_which_numbers_it_was_trained_for(small_text, tmp_path: Path, family):
    store, job = RunStore(tmp_path), dialled(small_text, "layer")
    if family == "sparsedial":  # a shape that no family of transformers has
        job = replace(job, shape=replace(job.shape, gate="softmax"))
    finish(execute(job, small_text, store, keep_checkpoint=True))
    folder = store.checkpoint(job.hash)
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == family
    assert config["sparsedial_trained_for"] == {"top_k_experts": [1, 2, 4], "by": "layer", "end": "lowest"}
    assert trained_for(load_config(folder)) == job.dial
    ids = torch.arange(20)[None]
    ours = load(folder)
    assert ours.shape == job.shape
    if family != "sparsedial":
        with torch.no_grad():
            torch.testing.assert_close(ours(ids), theirs_from(folder)(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("said", [7, {"top_k_experts": [1, 2]}, {"top_k_experts": [1, 2], "by": "token"}])
def test_a_damaged_word_of_what_it_was_trained_for_is_named(said):
    with pytest.raises(UserError, match="sparsedial_trained_for"):
        trained_for(Config({"sparsedial_trained_for": said}, "folder"))
    assert trained_for(Config({}, "folder")) is None


def test_a_dial_and_how_it_is_drawn_are_inputs_of_a_run(small_text):
    job = dialled(small_text)
    plain = replace(job, dial=None)
    others = [plain, dialled(small_text, "layer"), replace(job, dial=TrainedFor(top_k_experts=(2, 4), by="step"))]
    assert len({each.hash for each in (job, *others)}) == 4
    assert job.flops < plain.flops
    assert job.inputs().flops == job.flops


def test_a_run_without_a_dial_has_the_name_that_it_had_before_there_were_any():
    """Else no run that was made before would be found again. The names change with the recipe's version."""
    assert RECIPE_VERSION == 5
    job = Job(shape=LADDER.shape(12, 8), recipe=RECIPE, text_digest="text", tokenizer="tokenizer")
    assert job.hash == "cbd647f226af30c61e7f36317988c6bfffe250e9787ef10a69a60cbbeb44e961"
    assert job.trunk == "7cb643556e4a08270af94e25748e9c3987da2a9c5a4dea2780703294b67d09bd"


def test_branches_with_a_dial_share_the_steps_before_the_lowest_number_begins(small_text, tmp_path: Path):
    alone, shared = RunStore(tmp_path / "alone"), RunStore(tmp_path / "shared")
    changes = {"warmup_steps": 4, "warmup_share": 0.0, "decay_share": 0.02, "mtp_late_weight": 0.3}
    short, long = (dialled(small_text, steps=steps, **changes) for steps in (40, 90))
    assert short.trunk == long.trunk
    assert short.recipe.trunk_steps == 38
    assert short.trunk_steps == 36
    expected = [finish(execute(job, small_text, alone)) for job in (short, long)]
    records = [finish(execute(job, small_text, shared, keep_trunk=True)) for job in (short, long)]
    assert [record.trunk_steps_shared for record in records] == [0, 36]
    assert [one.dial_losses for one in records] == [one.dial_losses for one in expected]


def test_a_step_with_few_experts_is_no_spike_and_one_far_above_its_like_is(small_text, tmp_path: Path, monkeypatch):
    """Of five numbers the lowest has a loss that is far above the others'."""
    job = dialled(small_text, numbers=(1, 2, 3, 4, 5), steps=400, spike_sigmas=6.0)
    read_figures, made = loop.read, itertools.count()
    last = max(step for step in range(360) if job.draws.at(step)[0] == 1)

    def figures(taken):
        (one,), step = read_figures(taken), next(made)
        return [replace(one, loss=2.0 + (job.draws.at(step)[0] == 1) + (step == last) + 1e-3 * (step % 7))]

    monkeypatch.setattr(loop, "read", figures)
    steps = execute(job, small_text, RunStore(tmp_path))
    assert [step.index for step in islice(steps, last)] == list(range(last))
    assert next(steps).index == last // 64 * 64  # undone, back to the last state that was kept
