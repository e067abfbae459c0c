"""The local executor: every task once, found again, survived when a worker is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sparsedial.errors import UserError
from sparsedial.runs.executor import Moved, Task
from sparsedial.runs.local import Local
from sparsedial.runs.policy import carry_out
from sparsedial.runs.run_store import RunStore
from sparsedial.store import read_json
from tests.runs.tiny import job_of


class Notes:
    """A listener that remembers, and may do something when a task moves."""

    def __init__(self, on_step=lambda: None) -> None:
        self.ended_labels: list[str] = []
        self.on_step = on_step

    def moved(self, event: Moved) -> None:
        self.on_step()

    def ended(self, task, run) -> None:
        self.ended_labels.append(task.label)


def tasks_of(text, seeds, **changes):
    return [Task(job=job_of(text, 0, seed=seed, **changes), label=f"seed {seed}") for seed in seeds]


def run(groups, text, store, notes=None, **rest):
    executor = Local(text_folder=text.folder, runs_folder=store.folder, workers=2)
    return carry_out(groups, executor=executor, shelf=store, listener=notes or Notes(), **rest)


def run_all(tasks, *given, **rest):
    return run([(task,) for task in tasks], *given, **rest)


def test_every_task_is_done_once_and_found_the_next_time(small_text, tmp_path: Path, unguarded):
    store, tasks = RunStore(tmp_path), tasks_of(small_text, range(3))
    first = run_all(tasks, small_text, store)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/run.json")}
    notes = Notes()
    assert run_all(tasks, small_text, store, notes) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/run.json")} == stamps
    assert len(stamps) == len(notes.ended_labels) == 3


def test_a_run_may_be_followed_by_more_tasks(small_text, tmp_path: Path):
    more = {"seed 0": tasks_of(small_text, [7])}
    runs = run_all(
        tasks_of(small_text, [0]), small_text, RunStore(tmp_path), follow=lambda task, run: more.pop(task.label, [])
    )
    assert len(runs) == 2


def test_a_killed_worker_gives_its_run_back_and_the_result_is_the_same(small_text, tmp_path: Path):
    (task,) = tasks_of(small_text, [1], steps=500)
    expected = run_all([task], small_text, RunStore(tmp_path / "a"))
    killed = []

    def kill_once() -> None:
        if not killed:
            children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
            workers = [pid for pid in map(int, children) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
            killed.extend(workers)

    again = run_all([task], small_text, RunStore(tmp_path / "b"), Notes(kill_once))
    assert killed
    assert again[task.job.hash].validation_loss == expected[task.job.hash].validation_loss


def test_an_interrupted_run_is_left_in_a_state_to_go_on_from(small_text, tmp_path: Path):
    (task,) = tasks_of(small_text, [1], steps=100_000)
    store = RunStore(tmp_path)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all([task], small_text, store, Notes(interrupt))
    assert read_json(store.unfinished(task.job.hash) / "state.json")["next_step"] > 1


HELD_BACK = """
import os, signal, subprocess, sys
from sparsedial.runs.spawned import held_back

caught = []
signal.signal(signal.SIGINT, lambda *_: caught.append("parent"))
with held_back(signal.SIGINT):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    os.kill(os.getpid(), signal.SIGINT)
    assert not caught
assert caught == ["parent"]
child.send_signal(signal.SIGINT)
child.communicate(b"\\n")
assert child.returncode == 0
"""


def test_a_child_that_is_started_while_a_signal_is_held_back_never_gets_it():
    """In a process of its own: threads that other tests left would take the signal."""
    subprocess.run([sys.executable, "-c", HELD_BACK], check=True)


def test_bad_input_in_a_worker_is_raised_in_the_study(small_text, tmp_path: Path):
    with pytest.raises(UserError, match="batch"):
        run_all(tasks_of(small_text, [0], batch=100_000), small_text, RunStore(tmp_path))


def test_timed_runs_share_the_machine_in_turn_and_say_so(small_text, tmp_path: Path):
    tasks = tuple(Task(job=job_of(small_text, experts, seed=1), label=str(experts), alone=True) for experts in (0, 8))
    runs = run([tasks], small_text, RunStore(tmp_path))
    assert all(runs[task.job.hash].alone for task in tasks)
    assert all(runs[task.job.hash].seconds > 0 for task in tasks)
