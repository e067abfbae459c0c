"""What is done with tasks whoever executes them, on an executor that trains nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sparsedial.errors import UserError
from sparsedial.runs.executor import Ended, Task
from sparsedial.runs.policy import MOST_TRIES, carry_out, done
from sparsedial.runs.simulated import Simulated
from tests.runs.test_local import Notes
from tests.sweep.simulation import WORLD, bench


def task_of(width: int, seed: int = 0, **rest) -> Task:
    lab = bench().lab
    job = lab.job(lab.layout.ladder.shape(width, 0), 100, 8, 0.01, seed)
    return Task(job=job, label=f"width {width}, seed {seed}", **rest)


def carry(groups, executor, **rest):
    return carry_out(groups, executor=executor, shelf=executor, listener=Notes(), **rest)


def test_a_run_that_shared_the_machine_does_not_answer_a_timed_task():
    executor, task = Simulated(WORLD), task_of(16)
    timed = replace(task, alone=True)
    carry([(task,)], executor)
    assert done(task, executor) is not None
    assert done(timed, executor) is None
    carry([(timed,)], executor)
    assert done(task, executor).alone


def test_a_run_without_a_test_loss_or_a_checkpoint_does_not_answer_a_task_that_asks_for_it():
    executor, task = Simulated(WORLD), task_of(16)
    scored, kept = replace(task, splits=("validation", "test")), replace(task, keep_checkpoint=True)
    carry([(task,)], executor)
    for more in (scored, kept):
        assert done(more, executor) is None
        carry([(more,)], executor)
        assert done(more, executor) is not None


def test_a_group_that_is_partly_done_is_done_again_as_a_whole():
    executor, pair = Simulated(WORLD), (task_of(16, alone=True), task_of(24, alone=True))
    carry([pair[:1]], executor)
    carry([pair], executor)
    assert executor.labels == [pair[0].label, *(task.label for task in pair)]
    carry([pair], executor)
    assert len(executor.labels) == 3


def test_follow_ups_of_what_was_found_done_are_done_too():
    executor, first, second = Simulated(WORLD), task_of(16), task_of(24)
    carry([(first,)], executor)
    runs = carry([(first,)], executor, follow=lambda task, run: [second] if task == first else [])
    assert set(runs) == {first.job.hash, second.job.hash}


def test_a_lost_group_is_done_again_before_those_that_wait():
    class Once(Simulated):
        def _begin(self, group):
            self.world = replace(WORLD, lost_share=0.0 if self.labels else 1.0)
            super()._begin(group)

    executor, tasks = Once(WORLD, workers=1), [task_of(16, seed) for seed in range(3)]
    carry([(task,) for task in tasks], executor)
    assert executor.labels == [tasks[0].label, *(task.label for task in tasks)]


def test_a_run_that_ends_its_worker_again_and_again_ends_the_study():
    executor = Simulated(replace(WORLD, lost_share=1.0))
    with pytest.raises(UserError, match=f"killed its worker {MOST_TRIES} times"):
        carry([(task_of(16),)], executor)
    assert len(executor.labels) == MOST_TRIES


class Crowd(Simulated):
    """Remembers which tasks it was given while others were under way."""

    def __init__(self) -> None:
        super().__init__(WORLD, workers=2)
        self.under: list[str] = []
        self.beside: dict[str, list[str]] = {}

    def submit(self, group, *, first=False) -> None:
        for task in group:
            self.beside[task.label] = list(self.under)
        self.under += [task.label for task in group]
        super().submit(group, first=first)

    def wait(self):
        events = super().wait()
        for event in events:
            if isinstance(event, Ended):
                self.under = [label for label in self.under if label not in {task.label for task in event.group}]
        return events


def test_a_task_that_must_be_alone_has_no_other_beside_it():
    executor = Crowd()
    tasks = [task_of(16, seed=seed, alone=seed in (2, 3)) for seed in range(6)]
    carry([(task,) for task in tasks], executor)
    alone = {task.label for task in tasks if task.alone}
    for label, others in executor.beside.items():
        assert not others or not ({label, *others} & alone), label
    assert executor.beside[tasks[1].label] == [tasks[0].label]
