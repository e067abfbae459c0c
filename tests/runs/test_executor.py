"""What every executor promises, whoever trains: all of ours, held to the same words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from sparsedial.runs import in_process
from sparsedial.runs.choosing import executor_for
from sparsedial.runs.executor import Ended, Executor, Group, Moved, Task
from sparsedial.runs.in_process import InProcess
from sparsedial.runs.local import Local
from sparsedial.runs.policy import Shelf
from sparsedial.runs.run_store import RunStore
from sparsedial.runs.simulated import Simulated
from tests.runs.tiny import job_of
from tests.sweep.simulation import WORLD


@dataclass
class Promise:
    """An executor, of one worker or more, and where its runs are found."""

    executor: Executor
    shelf: Shelf
    tasks: list[Task]
    at_once: int = 1

    def ends(self, count: int) -> list[Ended]:
        """The next groups that end."""
        found: list[Ended] = []
        while len(found) < count:
            found += [event for event in self.executor.wait() if isinstance(event, Ended)]
        return found


@pytest.fixture(params=["local", "in process", "three at once", "simulated"])
def promise(request, small_text, tmp_path: Path) -> Promise:
    jobs = [job_of(small_text, 0, seed=seed, steps=12, batch=2) for seed in range(4)]
    tasks = [Task(job=job, label=f"seed {job.recipe.seed}", splits=("validation", "test")) for job in jobs]
    if request.param == "simulated":
        simulated = Simulated(WORLD, workers=1)
        return Promise(simulated, simulated, tasks)
    store = RunStore(tmp_path)
    if request.param in ("in process", "three at once"):
        most = 1 if request.param == "in process" else 3
        return Promise(InProcess(text=small_text, store=store, most=most), store, tasks, most)
    return Promise(Local(text_folder=small_text.folder, runs_folder=store.folder, workers=1), store, tasks)


def test_groups_come_back_once_with_their_runs_in_order_and_the_first_ones_first(promise: Promise):
    one, two, three, four = promise.tasks
    groups: list[Group] = [(one,), (three, two), (four,)]
    with promise.executor as executor:
        executor.submit(groups[0])
        executor.submit(groups[1])
        executor.submit(groups[2], first=True)
        ended = promise.ends(3)
    if promise.at_once == 1:
        assert [event.group for event in ended] == [groups[2], groups[0], groups[1]]
    assert sorted(event.group[0].label for event in ended) == sorted(group[0].label for group in groups)
    for event in ended:
        assert [run.hash for run in event.runs] == [task.job.hash for task in event.group]
        for task, run in zip(event.group, event.runs, strict=True):
            assert promise.shelf.find(task.job.hash) == run
            assert run.finished
            assert run.steps_done == 12
            assert run.test_loss is not None


def test_what_moves_is_a_task_of_a_submitted_group(promise: Promise):
    events = []
    with promise.executor as executor:
        executor.submit((promise.tasks[0],))
        while not any(isinstance(event, Ended) for event in events):
            events += executor.wait()
    moved = [event for event in events if isinstance(event, Moved)]
    assert all(event.task == promise.tasks[0] and 0 <= event.step < 12 for event in moved)
    assert all(event.steps_per_second > 0 for event in moved)


def test_what_waited_when_it_was_left_is_forgotten(promise: Promise):
    with promise.executor as executor:
        for task in promise.tasks:
            executor.submit((task,))
    with promise.executor as executor:
        executor.submit((promise.tasks[3],))
        (ended,) = promise.ends(1)
    assert ended.group == (promise.tasks[3],)


def test_a_gpu_has_all_runs_in_one_process_and_a_cpu_a_process_for_each(small_text, tmp_path: Path, monkeypatch):
    on_gpu = executor_for("cuda", small_text, RunStore(tmp_path), 3)
    assert isinstance(on_gpu, InProcess)
    assert isinstance(executor_for("cpu", small_text, RunStore(tmp_path), 3), Local)
    jobs = [job_of(small_text, 0, seed=seed, steps=12) for seed in range(4)]
    with on_gpu:
        for job in jobs:
            on_gpu.submit((Task(job=job, label="one"),))
        monkeypatch.setattr(in_process, "WAIT_SECONDS", 0.0)
        monkeypatch.setattr(in_process, "TURN_SECONDS", 0.0)
        assert len(on_gpu.wait()) == 3
