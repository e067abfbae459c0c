"""Workers that are kept from one phase to the next, for runs on one text and on another."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsedial.runs.executor import Task
from sparsedial.runs.local import Local
from sparsedial.runs.policy import carry_out
from sparsedial.runs.pool import Pool
from sparsedial.runs.run_store import RunStore
from sparsedial.runs.spawned import Spawned
from sparsedial.text.prepare import prepare
from tests.runs.test_local import Notes, run_all, tasks_of
from tests.runs.tiny import job_of


def losses_of(tasks, text, store, pool, notes=None):
    executor = Local(text_folder=text.folder, runs_folder=store.folder, workers=1, pool=pool)
    runs = carry_out([(task,) for task in tasks], executor=executor, shelf=store, listener=notes or Notes())
    return [runs[task.job.hash].validation_loss for task in tasks]


@pytest.fixture
def started(monkeypatch) -> list[Spawned]:
    """The workers that were started."""
    from sparsedial.runs import pool

    begun: list[Spawned] = []
    spawn = pool.spawn
    monkeypatch.setattr(pool, "spawn", lambda *given: begun.append(spawn(*given)) or begun[-1])
    return begun


def test_one_worker_serves_all_phases_and_all_texts_as_new_ones_do(small_text, corpus, tmp_path: Path, started):
    half = prepare([str(corpus / f"{number:02}.txt") for number in range(20)], folder=tmp_path / "half")
    texts = (small_text, half, small_text)
    tasks = [tasks_of(text, [seed]) for seed, text in enumerate(texts)]
    with Pool() as pool:
        kept = [losses_of(one, text, RunStore(tmp_path / "a"), pool) for one, text in zip(tasks, texts, strict=True)]
    assert len(started) == 1
    assert not started[0].process.is_alive()
    anew = [run_all(one, text, RunStore(tmp_path / "b")) for one, text in zip(tasks, texts, strict=True)]
    assert kept == [[run.validation_loss for run in runs.values()] for runs in anew]


def test_a_worker_that_died_while_it_was_idle_is_replaced(small_text, tmp_path: Path, started):
    first, second = tasks_of(small_text, [0, 1])
    with Pool() as pool:
        losses_of([first], small_text, RunStore(tmp_path), pool)
        started[0].process.kill()
        started[0].process.join()
        losses_of([second], small_text, RunStore(tmp_path), pool)
    assert len(started) == 2


def test_a_busy_worker_is_not_kept(small_text, tmp_path: Path, started):
    long = Task(job=job_of(small_text, 0, seed=1, steps=100_000), label="long")

    def interrupt() -> None:
        raise KeyboardInterrupt

    with Pool() as pool:
        with pytest.raises(KeyboardInterrupt):
            losses_of([long], small_text, RunStore(tmp_path), pool, Notes(interrupt))
        assert not started[0].process.is_alive()
