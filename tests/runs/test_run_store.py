"""The folder of runs: what is damaged is done again."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from sparsedial.errors import UserError
from sparsedial.records.run import Metric
from sparsedial.runs.run_store import RunStore
from tests.sweep.simulation import steady

HASH = "ab" * 32


def test_a_damaged_run_is_not_found_so_that_it_is_done_again(tmp_path: Path):
    store, run = RunStore(tmp_path), next(iter(steady().cells.values())).run
    store.write(run)
    assert store.find(run.hash) == run
    path = store.path(run.hash) / "run.json"
    path.write_text(path.read_text().replace('"seconds": ', '"seconds": 1'))
    assert store.find(run.hash) is None


def test_a_run_of_another_name_is_not_taken_for_it(tmp_path: Path):
    store, run = RunStore(tmp_path), next(iter(steady().cells.values())).run
    store.write(run)
    assert store.find(run.hash[:16] + "0" * 48) is None


STEP = Metric(
    index=0,
    loss=2.5,
    gradient_norm=None,
    learning_rate=0.01,
    seconds=0.1,
    tokens=256,
    max_over_mean=None,
    dead_experts=None,
    entropy=None,
    bias_drift=None,
)


def test_a_curve_comes_back_as_it_was(tmp_path: Path):
    store, sparse = RunStore(tmp_path), replace(STEP, max_over_mean=2.0, dead_experts=1, entropy=0.9, bias_drift=0.1)
    store.write_metrics(HASH, [STEP, sparse])
    assert store.metrics(HASH) == [STEP, sparse]


@pytest.mark.parametrize(
    ("content", "says"), [('{"index": 0', "not readable"), ('{"index": 0, "loss": 1.0}', "line 1: lacks the field")]
)
def test_a_damaged_curve_is_named(tmp_path: Path, content, says):
    store = RunStore(tmp_path)
    store.write_metrics(HASH, [STEP])
    (store.path(HASH) / "metrics.jsonl").write_text(content)
    with pytest.raises(UserError, match=rf"metrics\.jsonl.*{says}"):
        store.metrics(HASH)
