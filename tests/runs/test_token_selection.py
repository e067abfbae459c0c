"""A run that selects its tokens: resumed bit for bit, named by what it selects by, with the reference's cost."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from sparsedial.errors import UserError
from sparsedial.records.record import read
from sparsedial.records.run import Run
from sparsedial.runs.execute import execute
from sparsedial.runs.job import Job
from sparsedial.runs.run_store import RunStore
from sparsedial.text.prepare import Text, prepare
from sparsedial.text.reference_losses import BYTES_FILE
from tests.runs.test_execute import killed, read_metrics  # noqa: F401  # a fixture
from tests.runs.tiny import finish, job_of
from tests.text.test_reference_losses import stored


@pytest.fixture(scope="module")
def text(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Text:
    return prepare([str(corpus)], folder=tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def job(text: Text) -> Job:
    nats = np.random.default_rng(0).uniform(0, 5, text.train_tokens - 1)
    return replace(job_of(text, spike_sigmas=6.0), token_selection=stored(text, nats))


@pytest.mark.usefixtures("killed")
def test_a_resumed_run_that_selects_tokens_equals_an_uninterrupted_one_bit_for_bit(text, job, tmp_path: Path):
    whole, parts = RunStore(tmp_path / "whole"), RunStore(tmp_path / "parts")
    expected = finish(execute(job, text, whole, keep_checkpoint=True))
    list(islice(execute(job, text, parts, save_seconds=0.0), 17))
    record = finish(execute(job, text, parts, keep_checkpoint=True))
    assert record.validation_loss == expected.validation_loss
    lines = [
        [(line["loss"], line["gradient_norm"]) for line in read_metrics(each, job.hash)] for each in (whole, parts)
    ]
    assert lines[0] == lines[1]
    weights = [(each.checkpoint(job.hash) / "model.safetensors").read_bytes() for each in (whole, parts)]
    assert weights[0] == weights[1]
    everything = finish(execute(replace(job, token_selection=None), text, whole))
    assert everything.validation_loss != expected.validation_loss


def test_the_share_and_the_reference_name_a_run_and_a_place_does_not(job):
    chosen = job.token_selection
    plain = replace(job, token_selection=None)
    assert "token_selection" not in plain._named_by, "a run without is named as before there were any"
    names = {plain.hash, job.hash}
    for fields in ({"share": 0.5}, {"losses_sha256": "1"}, {"reference": _at(chosen, digest="1")}):
        names.add(replace(job, token_selection=type(chosen)(**{**dict(chosen), **fields})).hash)
    assert len(names) == 5
    moved = type(chosen)(**{**dict(chosen), "reference": _at(chosen, path="/there")})
    assert replace(job, token_selection=moved).hash == job.hash


def _at(chosen, **changes):
    return type(chosen.reference)(**{**dict(chosen.reference), **changes})


def test_a_run_states_what_its_reference_cost_beside_its_own_cost(text, job, tmp_path):
    store = RunStore(tmp_path)
    record = finish(execute(job, text, store))
    assert read(store.path(job.hash) / "run.json", Run) == record
    assert record.token_selection == job.token_selection
    assert (record.reference_cost.training_flops, record.reference_cost.scoring_flops) == (5.0, 7.0)
    assert record.flops == replace(job, token_selection=None).flops
    assert record.total_flops == record.flops + 12
    assert record.total_seconds == pytest.approx(record.seconds + 1.5)


def test_a_run_whose_losses_are_not_all_there_is_refused(text, job, tmp_path):
    path = text.folder / BYTES_FILE
    held = path.read_bytes()
    path.write_bytes(held[:-1])
    try:
        with pytest.raises(UserError, match=f"instead of {text.train_tokens}"):
            finish(execute(job, text, RunStore(tmp_path)))
    finally:
        path.write_bytes(held)
    assert not list(tmp_path.iterdir())
