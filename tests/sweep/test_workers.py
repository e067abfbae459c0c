"""Workers: every task once, found again, survived when killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sparsedial.errors import UserError
from sparsedial.store import RunStore, read_json
from sparsedial.sweep.workers import Task, held_back, run_in_turn, run_tasks
from tests.training.test_loop import job_of


class Notes:
    """A listener that remembers, and may do something when a task moves."""

    def __init__(self, on_cell=lambda: None) -> None:
        self.ended: list[str] = []
        self.on_cell = on_cell

    def cell(self, task, message) -> None:
        self.on_cell()

    def done(self, task, record) -> None:
        self.ended.append(task.label)


def tasks_of(text, seeds, **changes):
    return [Task(job=job_of(text, 0, seed=seed, **changes), label=f"seed {seed}", tag=seed) for seed in seeds]


def run(tasks, text, store, notes=None, **rest):
    return run_tasks(tasks, store=store, text_folder=text.folder, workers=2, listener=notes or Notes(), **rest)


def test_every_task_is_done_once_and_found_the_next_time(small_text, tmp_path: Path):
    store, tasks = RunStore(tmp_path), tasks_of(small_text, range(3))
    first = run(tasks, small_text, store)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/run.json")}
    notes = Notes()
    assert run(tasks, small_text, store, notes) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/run.json")} == stamps
    assert len(stamps) == len(notes.ended) == 3


def test_a_record_may_be_followed_by_more_tasks(small_text, tmp_path: Path):
    more = {0: tasks_of(small_text, [7])}
    records = run(
        tasks_of(small_text, [0]), small_text, RunStore(tmp_path), follow=lambda task, record: more.pop(task.tag, [])
    )
    assert len(records) == 2


def test_a_killed_worker_gives_its_run_back_and_the_result_is_the_same(small_text, tmp_path: Path):
    (task,) = tasks_of(small_text, [1], steps=500)
    expected = run([task], small_text, RunStore(tmp_path / "a"))
    killed = []

    def kill_once() -> None:
        if not killed:
            children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
            workers = [pid for pid in map(int, children) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
            killed.extend(workers)

    again = run([task], small_text, RunStore(tmp_path / "b"), Notes(kill_once))
    assert killed
    assert again[task.job.hash]["validation_loss"] == expected[task.job.hash]["validation_loss"]


def test_an_interrupted_run_is_left_in_a_state_to_go_on_from(small_text, tmp_path: Path):
    (task,) = tasks_of(small_text, [1], steps=100_000)
    store = RunStore(tmp_path)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([task], small_text, store, Notes(interrupt))
    assert read_json(store.unfinished(task.job.hash) / "state.json")["next_step"] > 1


def test_a_child_that_is_started_while_a_signal_is_held_back_never_gets_it():
    caught = []
    before = signal.signal(signal.SIGINT, lambda *_: caught.append("parent"))
    try:
        with held_back(signal.SIGINT):
            child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
            os.kill(os.getpid(), signal.SIGINT)
            assert not caught
        assert caught == ["parent"]
        child.send_signal(signal.SIGINT)
        child.communicate(b"\n")
        assert child.returncode == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_bad_input_in_a_worker_is_raised_in_the_study(small_text, tmp_path: Path):
    with pytest.raises(UserError, match="batch"):
        run(tasks_of(small_text, [0], batch=100_000), small_text, RunStore(tmp_path))


def test_timed_runs_share_the_machine_in_turn_and_say_so(small_text, tmp_path: Path):
    tasks = tuple(Task(job=job_of(small_text, experts, seed=1), label=str(experts), alone=True) for experts in (0, 8))
    records = run_in_turn(tasks, store=RunStore(tmp_path), text_folder=small_text.folder, listener=Notes())
    assert all(record["alone"] for record in records.values())
    assert all(record["seconds"] > 0 for record in records.values())


def test_a_run_that_was_not_alone_does_not_answer_a_timed_task(small_text, tmp_path: Path):
    store = RunStore(tmp_path)
    (task,) = tasks_of(small_text, [2])
    run([task], small_text, store)
    timed = Task(job=task.job, label="timed", alone=True)
    assert task.done(store) is not None
    assert timed.done(store) is None
