"""A run on a text with probes is scored on them when it has finished, and its record keeps the scores."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from sparsedial.evaluation.probes import probe_scores
from sparsedial.evaluation.scorer import Scorer
from sparsedial.model.checkpoint import load
from sparsedial.runs.execute import execute
from sparsedial.runs.run_store import RunStore
from sparsedial.text.prepare import Text, prepare
from sparsedial.text.probes import Mixture
from tests.runs.tiny import finish, job_of


@pytest.fixture(scope="module")
def mixed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Text:
    """The corpus with probes."""
    folder = tmp_path_factory.mktemp("mixed")
    return prepare([str(corpus)], tokenizer="bytes", folder=folder, probes=Mixture(share=0.08, seed=3))


def test_the_record_of_a_run_holds_the_scores_of_its_model(mixed, tmp_path: Path):
    store, job = RunStore(tmp_path), job_of(mixed)
    list(islice(execute(job, mixed, store, probes=True), 20))  # left half-way, and taken up again
    run = finish(execute(job, mixed, store, probes=True, keep_checkpoint=True))
    assert run.probes is not None
    assert set(run.probes) == {"arithmetic", "facts", "reading"}
    assert store.read(job.hash).probes == run.probes
    again = probe_scores(Scorer(load(store.checkpoint(job.hash))), mixed.tokenizer, seed=3)
    assert again == run.probes


def test_probes_change_no_loss_that_a_text_without_them_has(small_text, mixed, tmp_path: Path):
    without = finish(execute(job_of(small_text), small_text, RunStore(tmp_path)))
    assert without.probes is None
    assert job_of(small_text).hash != job_of(mixed).hash
    assert mixed.bytes("test") == small_text.bytes("test")


def test_a_diverged_run_has_no_scores(mixed, tmp_path: Path):
    run = finish(execute(job_of(mixed, learning_rate=1e6, clip=1e9), mixed, RunStore(tmp_path), probes=True))
    assert (run.status, run.probes) == ("diverged", None)
