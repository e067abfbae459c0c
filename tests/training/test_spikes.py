"""Loss spikes: told from noise, undone one by one, and only so many."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from sparsedial.records.recipe import Recipe
from sparsedial.runs.execute import execute
from sparsedial.runs.job import Job
from sparsedial.runs.run_store import RunStore
from sparsedial.shape.ladder import Ladder
from sparsedial.text.sampler import Sampler
from sparsedial.training import step as step_module
from sparsedial.training.spikes import MOST_SKIPPED, is_spike
from tests.runs.tiny import finish

CALM = [3.0 + 0.01 * (-1) ** number for number in range(64)]  # median 3, robust deviation 0.0148


def job_of(text, **changes) -> Job:
    settings = {"learning_rate": 0.01, "steps": 12, "batch": 2, "context": 16, "spike_sigmas": 6.0}
    return Job(
        shape=Ladder(vocab_size=256, context=16).shape(12, 8),
        recipe=Recipe(**{**settings, **changes}),
        text_digest=text.digest,
        tokenizer=text.tokenizer.digest,
    )


@pytest.fixture
def harm(monkeypatch):
    """Have some batches give a gradient that is no number; gives the batches that were learnt from, in order."""
    read, clean, norm = [], Sampler.batch, step_module.gradient_norm

    def noted(sampler, step, rank):
        read.append(step)
        assert len(read) < 100, "it goes back for ever"
        return clean(sampler, step, rank)

    def set_up(harmful) -> list[int]:
        monkeypatch.setattr(Sampler, "batch", noted)
        monkeypatch.setattr(step_module, "gradient_norm", lambda given: math.nan if harmful(read[-1]) else norm(given))
        return read

    return set_up


@pytest.mark.parametrize("before", [[], CALM[:5], CALM])
@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (2.0, math.nan), (2.0, math.inf)])
def test_what_is_no_number_is_a_spike_at_once(loss, norm, before):
    assert is_spike(loss, norm, before, 6.0)


def test_a_loss_is_a_spike_only_well_above_the_last_ones():
    assert not is_spike(3.29, 1.0, CALM, 6.0)  # 20 deviations, yet less than matters
    assert is_spike(3.31, 1.0, CALM, 6.0)
    wide = [3.0 + 0.1 * (-1) ** number for number in range(64)]
    assert not is_spike(3.88, 1.0, wide, 6.0)
    assert is_spike(3.9, 1.0, wide, 6.0)
    assert not is_spike(9.0, 1.0, CALM[:31], 6.0)  # too few to tell
    assert not is_spike(1.0, 1.0, CALM, 6.0)


def test_a_second_spike_is_undone_beside_the_first(small_text, tmp_path: Path, harm):
    """Both are told, and both batches stay out: each time the run begins again without them."""
    read = harm(lambda batch: batch in (3, 5))
    record = finish(execute(job_of(small_text), small_text, RunStore(tmp_path)))
    told = [(event.step, event.batch_skipped, event.back_to_step) for event in record.events]
    assert told == [(3, 3, 0), (4, 5, 0)]
    assert read == [*range(4), 0, 1, 2, 4, 5, 0, 1, 2, 4, *range(6, 14)]
    assert record.status == "finished"


def test_only_so_many_batches_are_left_out(small_text, tmp_path: Path, harm):
    read = harm(lambda batch: True)
    record = finish(execute(job_of(small_text, steps=100), small_text, RunStore(tmp_path)))
    assert [event.batch_skipped for event in record.events] == list(range(MOST_SKIPPED))
    assert read == list(range(MOST_SKIPPED + 1))
    assert (record.status, record.steps_done) == ("diverged", 1)
    assert "not finite" in record.reason


def test_a_run_without_a_guard_ends_at_the_first_spike(small_text, tmp_path: Path, harm):
    harm(lambda batch: batch == 3)
    record = finish(execute(job_of(small_text, spike_sigmas=0.0), small_text, RunStore(tmp_path)))
    assert (record.status, record.steps_done, record.events) == ("diverged", 4, ())
