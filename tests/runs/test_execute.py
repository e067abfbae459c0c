"""One run, driven to its end: resumed bit for bit, ended where it diverges, spikes undone, trunks shared."""

from __future__ import annotations

import errno
import json
import math
import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from sparsedial.errors import UserError
from sparsedial.runs.execute import execute
from sparsedial.runs.ranks.joined import Joined
from sparsedial.runs.run_store import RunStore
from sparsedial.runs.state import begin
from sparsedial.store import read_json, write_json
from sparsedial.text.sampler import Sampler
from sparsedial.training.loop import Step
from tests.runs.tiny import finish, job_of


def read_metrics(store: RunStore, run_hash: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (store.path(run_hash) / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def killed(monkeypatch) -> None:
    """A run that is left saves nothing more, as one that was killed."""
    monkeypatch.setattr("sparsedial.runs.state.LiveRun.leave", lambda *_, **__: None)


@pytest.mark.parametrize(
    ("stops", "optimizer"), [((17,), "adamw"), ((1, 2, 39), "adamw"), ((5, 20), "adamw"), ((3, 20), "muon")]
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(small_text, tmp_path: Path, killed, stops, optimizer):
    whole, parts = RunStore(tmp_path / "whole"), RunStore(tmp_path / "parts")
    job = job_of(small_text, optimizer=optimizer)
    expected = finish(execute(job, small_text, whole, keep_checkpoint=True))
    done = 0
    for stop in stops:  # leave the generator as a kill would: the state on disk is all that stays
        list(islice(execute(job, small_text, parts, save_seconds=0.0), stop - done))
        done = stop - 1  # the state of the last step was not saved yet when the run was left
    record = finish(execute(job, small_text, parts, keep_checkpoint=True))
    for name in ("validation_loss", "train_loss", "steps_done", "tokens", "hash"):
        assert record[name] == expected[name], name
    names = ("loss", "gradient_norm", "learning_rate")
    series = [[[line[name] for name in names] for line in read_metrics(store, job.hash)] for store in (whole, parts)]
    assert series[0] == series[1]
    weights = [(store.path(job.hash) / "checkpoint" / "model.safetensors").read_bytes() for store in (whole, parts)]
    assert weights[0] == weights[1]


def test_a_run_that_goes_back_counts_the_states_that_it_saved_since(small_text, tmp_path: Path):
    job, store = job_of(small_text), RunStore(tmp_path)
    live = begin(job, store, Joined())
    live.tally.next_step = 1
    live.keep()
    live.save(store.unfinished(job.hash), job.hash)
    live.go_back(Step(3, math.inf, 1.0, 0.0, 0.0, 0))
    assert (live.tally.next_step, live.tally.states) == (1, 1)
    assert live.tally.states_seconds > 0
    live.leave(between_steps=True)
    assert read_json(store.unfinished(job.hash) / "state.json")["progress"]["states"] == 2


@pytest.mark.parametrize(("stop", "saved"), [(17, 17), (41, 40)])  # in the middle, and while it is scored
def test_a_run_that_is_closed_goes_on_from_its_last_step(small_text, tmp_path: Path, stop, saved):
    job = job_of(small_text)
    expected = finish(execute(job, small_text, RunStore(tmp_path / "whole")))
    parts = RunStore(tmp_path / "parts")
    steps = execute(job, small_text, parts)
    list(islice(steps, stop))
    steps.close()
    assert read_json(parts.unfinished(job.hash) / "state.json")["next_step"] == saved
    again = execute(job, small_text, parts)
    assert next(again).index == min(saved, 39)
    assert finish(again).validation_loss == expected.validation_loss


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

    expected = finish(execute(job, small_text, RunStore(tmp_path / "whole")))
    monkeypatch.setattr(step, "gradient_norm", stopped)
    with pytest.raises(KeyboardInterrupt):
        finish(execute(job, small_text, store))
    state = store.unfinished(job.hash) / "state.json"
    assert (read_json(state)["next_step"] if state.exists() else None) == saved
    assert finish(execute(job, small_text, store)).validation_loss == expected.validation_loss


def cut_tensors(home: Path) -> None:
    (tensors,) = home.glob("*.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-100])


def no_tensors(home: Path) -> None:
    (tensors,) = home.glob("*.safetensors")
    tensors.unlink()


def cut_numbers(home: Path) -> None:
    (home / "state.json").write_bytes((home / "state.json").read_bytes()[:-100])


def of_another_version(home: Path) -> None:
    state = read_json(home / "state.json")
    del state["progress"]["skipped"]
    write_json(home / "state.json", state)


@pytest.mark.parametrize("damage", [cut_tensors, no_tensors, cut_numbers, of_another_version])
def test_a_damaged_or_old_state_starts_the_run_anew(small_text, tmp_path: Path, killed, damage):
    store, job = RunStore(tmp_path), job_of(small_text)
    list(islice(execute(job, small_text, store, save_seconds=0.0), 10))
    assert next(execute(job, small_text, store)).index == 9
    damage(store.unfinished(job.hash))
    assert next(execute(job, small_text, store)).index == 0


def test_a_full_disk_does_not_hide_ctrl_c(small_text, tmp_path: Path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    job, store = job_of(small_text, steps=90, spike_sigmas=8.0), RunStore(tmp_path)
    steps = execute(job, small_text, store)
    list(islice(steps, 70))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt())
    assert not (store.unfinished(job.hash) / "state.json").exists()


def test_a_diverged_run_ends_early_and_is_kept_with_its_reason(small_text, tmp_path: Path):
    store, job = RunStore(tmp_path), job_of(small_text, learning_rate=1e6, clip=1e9)
    record = finish(execute(job, small_text, store))
    assert record.status == "diverged"
    assert "step" in record.reason
    assert record.steps_done < 40
    assert record.validation_loss is None
    assert store.find(job.hash) is not None


def test_a_text_smaller_than_a_batch_is_refused(small_text, tmp_path: Path):
    with pytest.raises(UserError, match="batch"):
        next(iter(execute(job_of(small_text, batch=100_000), small_text, RunStore(tmp_path))))


def test_a_run_goes_on_from_the_trunk_of_a_shorter_one_bit_for_bit(small_text, tmp_path: Path):
    alone, shared = RunStore(tmp_path / "alone"), RunStore(tmp_path / "shared")
    short, long = (job_of(small_text, warmup_steps=4, steps=steps) for steps in (40, 100))
    assert short.trunk == long.trunk
    assert short.trunk != job_of(small_text, warmup_steps=5, steps=40).trunk
    expected = [finish(execute(job, small_text, alone)) for job in (short, long)]
    records = [finish(execute(job, small_text, shared, keep_trunk=True)) for job in (short, long)]
    assert [record.trunk_steps_shared for record in records] == [0, short.recipe.trunk_steps]
    assert records[0].trunk == short.trunk
    for mine, theirs in zip(records, expected, strict=True):
        assert mine.validation_loss == theirs.validation_loss
        assert mine.hash == theirs.hash
        assert mine.trunk == short.trunk


@pytest.fixture
def read_late(on_a_gpu, monkeypatch) -> None:
    """Figures are read after 1, 2, 4, 8, 16 and 9 steps."""
    monkeypatch.setattr("sparsedial.training.loop.READING_SECONDS", math.inf)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.usefixtures("read_late")
def test_a_run_that_is_closed_between_two_readings_goes_on_from_the_later_one(small_text, tmp_path: Path, optimizer):
    """Its weights are already those of the later one, and so are its numbers."""
    whole, parts = RunStore(tmp_path / "whole"), RunStore(tmp_path / "parts")
    job = job_of(small_text, optimizer=optimizer)
    expected = finish(execute(job, small_text, whole, keep_checkpoint=True))
    steps = execute(job, small_text, parts)
    assert [step.index for step in islice(steps, 12)] == list(range(12))
    steps.close()
    assert read_json(parts.unfinished(job.hash) / "state.json")["next_step"] == 15
    assert finish(execute(job, small_text, parts, keep_checkpoint=True)).validation_loss == expected.validation_loss
    series = [[{**line, "seconds": None} for line in read_metrics(store, job.hash)] for store in (whole, parts)]
    assert series[0] == series[1]
    weights = [(store.path(job.hash) / "checkpoint" / "model.safetensors").read_bytes() for store in (whole, parts)]
    assert weights[0] == weights[1]


@pytest.mark.usefixtures("read_late")
def test_a_trunk_is_read_and_saved_where_it_ends(small_text, tmp_path: Path):
    store = RunStore(tmp_path)
    short, long = (job_of(small_text, warmup_steps=4, steps=steps) for steps in (40, 50))
    finish(execute(short, small_text, store, keep_trunk=True))
    again = finish(execute(long, small_text, store))
    assert again.trunk_steps_shared == short.recipe.trunk_steps
    assert again.validation_loss == finish(execute(long, small_text, RunStore(tmp_path / "alone"))).validation_loss


@pytest.mark.usefixtures("read_late")
def test_a_run_that_diverges_between_two_readings_ends_at_that_step(small_text, tmp_path: Path):
    store, job = RunStore(tmp_path), job_of(small_text, learning_rate=1e6, clip=1e9)
    record = finish(execute(job, small_text, store))
    last = read_metrics(store, job.hash)[-1]
    assert record.status == "diverged"
    assert record.steps_done == last["index"] + 1 < 40
    assert f"at step {last['index']}" in record.reason


@pytest.mark.parametrize("changes", [{"warmup_steps": 0}, {"schedule": "cosine"}, {"decay_share": 0.95}])
def test_a_run_that_shares_no_step_with_longer_ones_records_no_trunk(small_text, tmp_path: Path, changes):
    job = job_of(small_text, **{"steps": 10, "warmup_steps": 2, "warmup_share": 0.0, **changes})
    assert finish(execute(job, small_text, RunStore(tmp_path))).trunk is None


def test_a_longer_trunk_than_a_run_has_is_not_taken(small_text, tmp_path: Path):
    store = RunStore(tmp_path)
    long, short = (job_of(small_text, warmup_steps=4, steps=steps) for steps in (100, 40))
    finish(execute(long, small_text, store, keep_trunk=True))
    assert finish(execute(short, small_text, store)).trunk_steps_shared == 0


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
    record = finish(execute(job, small_text, RunStore(tmp_path / "harmed")))
    monkeypatch.setattr(Sampler, "batch", without)
    monkeypatch.setattr(step_module, "gradient_norm", norm)
    expected = finish(execute(job, small_text, RunStore(tmp_path / "without")))
    (event,) = record.events
    assert (event.step, event.batch_skipped, event.back_to_step) == (at, at, back_to)
    assert expected.events == ()
    assert record.validation_loss == expected.validation_loss
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
    expected = finish(execute(job, small_text, whole))
    list(islice(execute(job, small_text, parts, save_seconds=0.0), 100))
    state = read_json(parts.unfinished(job.hash) / "state.json")
    assert state["next_step"] == 64  # states lie where a spike may go back to
    assert finish(execute(job, small_text, parts)).validation_loss == expected.validation_loss


def test_balance_is_read_along_the_run(small_text, tmp_path: Path):
    store, job = RunStore(tmp_path), job_of(small_text)
    finish(execute(job, small_text, store))
    lines = read_metrics(store, job.hash)
    assert {"max_over_mean", "dead_experts", "entropy", "bias_drift"} <= set(lines[0])
    assert lines[0]["bias_drift"] == 0
    assert lines[-1]["bias_drift"] > 0
