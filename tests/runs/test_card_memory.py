"""A run that a GPU has too little memory for is refused before it begins, and explained where it fails after all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.runs import execute as module
from sparsedial.runs import measuring
from sparsedial.runs.card_memory import NoRoom, counted_bytes, device_bytes, largest_batch, require_fits
from sparsedial.runs.execute import execute
from sparsedial.runs.run_store import RunStore
from sparsedial.training.step import TrainingStep
from tests.runs.tiny import finish, job_of

HELD = 80 * 10**9


@pytest.fixture
def card(monkeypatch):
    """Sets how many bytes are free on a card, how many this process has reserved, and how many of these it can give
    back: neither what tensors hold nor what graphs need at their next replay.
    """

    def has(free: float, reserved: int = 0, idle: int = 0) -> None:
        bytes_of_card = {"free": int(free), "reserved": reserved, "idle": idle}

        def give_back() -> None:
            bytes_of_card["free"] += bytes_of_card["idle"]
            bytes_of_card["reserved"] -= bytes_of_card["idle"]
            bytes_of_card["idle"] = 0

        monkeypatch.setattr(torch.cuda, "empty_cache", give_back)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (bytes_of_card["free"], HELD))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: bytes_of_card["reserved"])

    return has


def runs_out(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def bytes_of(job, batch: int) -> float:
    return float(counted_bytes(replace(job, recipe=replace(job.recipe, batch=batch))).total)


def test_a_run_that_does_not_fit_is_refused_with_its_bytes_and_the_largest_batch(small_text, card):
    job = replace(job_of(small_text, batch=64), device="cuda")
    card(bytes_of(job, 23) + 1)
    assert largest_batch(job, bytes_of(job, 23) + 1) == 23
    with pytest.raises(UserError, match=r"needs \S+ MB, and .* are free; other processes hold 80 GB") as refused:
        require_fits(job)
    assert refused.value.hint is not None
    assert "largest batch that fits is 23 " in refused.value.hint
    card(bytes_of(job, 64))
    require_fits(job)


def test_what_this_process_can_give_back_is_free_for_it_and_the_rest_is_nobody_elses(small_text, card):
    """Memory of runs that ended, but not that of graphs which may still be replayed, though no tensor is in it."""
    job = replace(job_of(small_text), device="cuda")
    card(1000, reserved=HELD - 1000, idle=HELD - 10**9)
    require_fits(job)
    card(1000, reserved=HELD - 1000, idle=0)
    with pytest.raises(UserError, match=r"are free$") as refused:
        require_fits(job)
    assert "not even one sequence" in str(refused.value.hint)


def test_the_memory_of_a_gpu_is_that_of_the_one_pytorch_sees(card):
    """The driver's tool may list another one first, or be missing."""
    card(10**9)
    assert device_bytes("cuda") == HELD


def test_a_cpu_is_not_asked(small_text, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", None)
    require_fits(job_of(small_text))


def test_memory_that_runs_out_in_a_step_is_explained(small_text, tmp_path: Path, monkeypatch, card):
    def full(*_: object, **__: object):
        raise torch.OutOfMemoryError("CUDA out of memory")
        yield

    card(1000, reserved=HELD - 1000)
    monkeypatch.setattr(module, "_train", full)
    with pytest.raises(UserError, match=r"memory ran out: .* counted to need .* could have 80 GB") as failed:
        finish(execute(job_of(small_text, batch=8), small_text, RunStore(tmp_path)))
    assert "largest batch that fits is 4 " in str(failed.value.hint)


@pytest.mark.usefixtures("on_a_gpu")
def test_a_run_whose_memory_ran_out_goes_on_from_its_saved_state(small_text, tmp_path: Path, monkeypatch, card):
    """Replayed, and several steps after a reading; it ends as one that never stopped."""
    card(1000, reserved=HELD - 1000)
    monkeypatch.setattr("sparsedial.training.loop.why_not", lambda *_: None)
    expected = finish(execute(job_of(small_text), small_text, RunStore(tmp_path / "whole")))
    steps, take, fails = [], TrainingStep.take, [31]

    def noted(*given, **named):
        steps.append(1)
        if len(steps) in fails:
            runs_out()
        return take(*given, **named)

    monkeypatch.setattr(TrainingStep, "take", noted)
    store = RunStore(tmp_path / "parts")
    with pytest.raises(NoRoom, match="memory ran out") as failed:
        finish(execute(job_of(small_text), small_text, store, save_seconds=0.0))
    assert "largest batch that fits is 4 " in str(failed.value.hint)
    begun = len(steps)
    found = finish(execute(job_of(small_text), small_text, store))
    assert 0 < len(steps) - begun < 40
    assert found.validation_loss == expected.validation_loss


def test_memory_that_runs_out_before_the_first_step_is_explained(small_text, tmp_path: Path, monkeypatch, card):
    card(1000, reserved=HELD - 1000)
    monkeypatch.setattr(module, "compile_ahead", runs_out)
    with pytest.raises(UserError, match=r"memory ran out: .* counted to need .* could have 80 GB"):
        finish(execute(job_of(small_text, batch=8), small_text, RunStore(tmp_path)))


def test_memory_that_runs_out_while_the_machine_is_measured_is_explained(card, monkeypatch):
    card(10**9)

    monkeypatch.setattr(measuring, "measure_profile", lambda *_, **__: runs_out())
    measure = measuring.measure_on("cpu", 1, lambda *_: None)
    with pytest.raises(UserError, match=r"memory ran out: 1\S* GB of .* other processes hold") as failed:
        measure([], 2, 16, 0.1)
    assert "smaller batch" in str(failed.value.hint)
