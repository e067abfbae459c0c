"""Runs on several machines: workers come, go, die and fall silent, and the results are those of one machine."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import replace as replace_task
from pathlib import Path

import pytest
from msgspec.structs import replace

from sparsedial.errors import UserError
from sparsedial.records.launch import JOIN_FILE
from sparsedial.records.record import write
from sparsedial.records.study import STUDY_FILE
from sparsedial.runs.executor import Lost
from sparsedial.runs.in_process import InProcess
from sparsedial.runs.machines import site as site_module
from sparsedial.runs.machines.joining import dial, find_meeting
from sparsedial.runs.machines.setup import setup_here
from sparsedial.runs.machines.spread import Spread
from sparsedial.runs.policy import carry_out
from sparsedial.runs.run_store import RunStore
from sparsedial.runs.worker import Alive
from tests.runs.house import PATIENCE, House, hello_of
from tests.runs.test_local import Notes, tasks_of
from tests.showing.synthetic import study_record
from tests.started import joining


def losses(runs) -> dict[str, float | None]:
    return {name: run.validation_loss for name, run in runs.items()}


def on_one(tasks, text, folder: Path) -> dict[str, float | None]:
    """The losses that one machine finds."""
    store = RunStore(folder)
    executor = InProcess(text=text, store=store)
    return losses(carry_out([(task,) for task in tasks], executor=executor, shelf=store, listener=Notes()))


def test_the_losses_of_several_machines_are_those_of_one(house: House, small_text, tmp_path: Path):
    tasks = tasks_of(small_text, range(5))
    house.join("b")
    house.join("c")
    found = house.carry([(task,) for task in tasks], workers=0)
    assert losses(found) == on_one(tasks, small_text, tmp_path / "one")
    assert house.trained("b") + house.trained("c") == 5
    assert min(house.trained("b"), house.trained("c")) >= 1
    assert (house.machines.so_far.attempts, house.machines.so_far.attempts_superseded) == (5, 0)
    assert house.carry([(task,) for task in tasks], workers=0) == found
    assert house.machines.so_far.attempts == 5


def test_a_worker_that_comes_late_takes_part(house: House, small_text):
    class Late(Notes):
        def ended(self, task, run):
            if not self.ended_labels:
                house.join("late")
            super().ended(task, run)

    house.join("b")
    notes = Late()
    house.carry([(task,) for task in tasks_of(small_text, range(4))], 0, notes)
    assert len(notes.ended_labels) == 4
    assert house.trained("late") >= 1


def test_a_group_that_another_machine_gives_back_is_trained_on_this_one(house: House, small_text, tmp_path: Path):
    """Workers that are gone say nothing of a run: however many there were, it does not end the study."""
    tasks = tasks_of(small_text, range(2))
    for host in "bcde":
        dial(find_meeting(house.folder), hello_of(host)).close()
        house.wait_for(host)
    found = house.carry([(task,) for task in tasks], workers=1)
    assert losses(found) == on_one(tasks, small_text, tmp_path / "one")
    assert house.trained("a") == 2
    assert house.site.joined == []


def test_the_group_of_a_worker_that_is_gone_is_lost_and_no_other_machine_gets_it_again(house: House, small_text):
    group = tuple(tasks_of(small_text, [1]))
    held = dial(find_meeting(house.folder), hello_of("b"))
    house.wait_for("b")
    with Spread(text_folder=small_text.folder, runs_folder=house.store.folder, workers=0, site=house.site) as executor:
        executor.submit(group)
        assert executor.wait() == []
        assert held.recv().group == group
        held.close()
        assert [event for _ in range(3) for event in executor.wait()] == [Lost(group=group, host="b")]
        other = dial(find_meeting(house.folder), hello_of("c"))
        house.wait_for("c")
        executor.submit(group, first=True)
        executor.submit(tuple(tasks_of(small_text, [2])))
        executor.wait()
        assert other.recv().group[0].label == "seed 2"


@contextlib.contextmanager
def joined(house: House, name: str) -> Iterator[int]:
    """A process that has joined; its worker's number."""
    process = joining(house.folder, name)
    try:
        house.wait_for(name)
        yield next(worker.process for worker in house.site.joined if worker.host == name)
    finally:
        process.kill()
        process.communicate()


def test_a_worker_that_is_killed_in_a_run_gives_it_back(house: House, small_text, tmp_path: Path):
    tasks, killed = tasks_of(small_text, [1, 2], steps=1000), []
    with joined(house, "b") as worker:

        class Killing(Notes):
            def moved(self, event) -> None:
                if event.task == tasks[1] and not killed:
                    os.kill(worker, signal.SIGKILL)
                    killed.append(worker)

        found = house.carry([(task,) for task in tasks], 1, Killing())
    assert losses(found) == on_one(tasks, small_text, tmp_path / "one")
    assert (house.machines.so_far.attempts, house.machines.so_far.attempts_superseded) == (3, 1)
    assert house.trained("a") == 2
    assert house.said == ["b has joined", "a worker of b is gone"]


def test_ctrl_c_takes_the_workers_of_a_machine_back(house: House, small_text):
    process = joining(house.folder, "b")
    try:
        house.wait_for("b")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.endswith("stopped; the study goes on without these workers\n")
    assert house.site.present() == 0
    assert house.said == ["b has joined", "a worker of b has left"]


def test_workers_that_leave_together_are_all_gone(house: House):
    """The number of those that are there is what a grid is planned with."""
    held = [dial(find_meeting(house.folder), hello_of(host)) for host in "bcd"]
    for host in "bcd":
        house.wait_for(host)
    for connection in held:
        connection.close()
    assert house.site.present() == 0


def test_a_machine_that_says_nothing_any_more_gives_its_run_back(house: House, small_text, monkeypatch):
    """One that loses its power, or its network, closes nothing."""
    monkeypatch.setattr(site_module, "SILENT_SECONDS", 0.1)
    held = dial(find_meeting(house.folder), hello_of("b"))
    house.wait_for("b")
    found = house.carry([(task,) for task in tasks_of(small_text, [1, 2], steps=12)], workers=1)
    assert held.recv().group[0].label == "seed 2"
    assert len(found) == house.trained("a") == 2
    assert house.said == ["b has joined", "a worker of b is silent"]


def test_workers_that_say_nothing_for_too_long_are_silent(house: House, monkeypatch):
    """Not those whose words nobody has read yet: the study was busy with something else."""
    held = [dial(find_meeting(house.folder), hello_of(host)) for host in ("b", "c")]
    house.wait_for("b")
    house.wait_for("c")
    house.site.joined.sort(key=lambda worker: worker.host)
    assert house.site.silent() == []
    held[0].send(Alive())
    assert house.site.joined[0].connection.poll(PATIENCE)
    monkeypatch.setattr(site_module, "SILENT_SECONDS", 0.0)
    assert [worker.host for worker in house.site.silent()] == ["c"]


def test_timed_runs_stay_on_this_machine(house: House, small_text):
    """However many idle workers others have; where this machine has none they wait."""
    timed = tuple(replace_task(task, alone=True) for task in tasks_of(small_text, range(2), steps=12))
    held = dial(find_meeting(house.folder), hello_of("b"))
    house.wait_for("b")
    with Spread(text_folder=small_text.folder, runs_folder=house.store.folder, workers=0, site=house.site) as executor:
        executor.submit(timed)
        executor.submit(tuple(tasks_of(small_text, [2])))
        executor.wait()
        assert held.recv().group[0].label == "seed 2"
    house.join("c")
    found = house.carry([timed], workers=1)
    assert all(run.alone for run in found.values())
    assert house.trained("a") == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"versions": {**setup_here().versions, "torch": "2.0.0"}}, "torch 2.0.0 instead of "),
        ({"versions": {}}, "sparsedial None instead of "),
        ({"recipe_version": 1}, "recipe version 1 instead of "),
        ({"kernels": "another"}, "kernels another instead of "),
    ],
)
def test_a_worker_whose_losses_would_differ_is_not_let_in(house: House, changes, says):
    hello = hello_of("b")
    with pytest.raises(UserError, match=says):
        dial(find_meeting(house.folder), replace(hello, setup=replace(hello.setup, **changes)))
    house.join("c")
    assert [worker.host for worker in house.site.joined] == ["c"]
    assert any(line.startswith("a worker of b was not let in") and says in line for line in house.said)


def test_a_worker_with_another_processor_is_let_in_and_said_to_round_otherwise(house: House):
    hello = hello_of("b")
    dial(find_meeting(house.folder), replace(hello, setup=replace(hello.setup, instructions="NEON")))
    house.wait_for("b")
    assert [line for line in house.said if "rounded otherwise" in line and "instructions NEON instead of" in line]


def test_a_refusal_is_one_line_of_the_command(house: House):
    meeting = find_meeting(house.folder)
    write(house.folder / JOIN_FILE, replace(meeting, key="0" * 64))
    process = joining(house.folder, "b")
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert len(errors.splitlines()) == 2
    assert "does not let this worker in: it has another key" in errors


def test_where_no_study_lets_workers_in_that_is_one_line(house: House, tmp_path: Path):
    with pytest.raises(UserError, match="no such folder on this machine"):
        find_meeting(tmp_path / "nowhere")
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="no study is running there that lets workers in"):
        find_meeting(tmp_path / "other")
    write(tmp_path / "other" / STUDY_FILE, study_record())
    with pytest.raises(UserError, match="its study has ended"):
        find_meeting(tmp_path / "other")
    meeting = find_meeting(house.folder)
    house.site.__exit__()
    with pytest.raises(UserError, match=r"cannot be reached .*refused"):
        dial(meeting, hello_of("b"))
    assert not (house.folder / JOIN_FILE).exists()


def test_the_end_of_a_study_ends_its_workers_and_an_unfinished_run_is_saved(house: House, small_text):
    (task,) = tasks_of(small_text, [1], steps=100_000)
    thread = house.join("b")

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        house.carry([(task,)], 0, Notes(interrupt))
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert (house.store.unfinished(task.job.hash) / "state.json").exists()


def test_a_run_that_cannot_be_done_is_refused_by_this_machine(house: House, small_text):
    house.join("b")
    impossible = tasks_of(small_text, [0], batch=100_000)
    with pytest.raises(UserError, match="batch"):
        house.carry([*(((task,)) for task in tasks_of(small_text, [1])), *[(task,) for task in impossible]], workers=1)
    assert any("is sent away, since it could not train a run: " in line for line in house.said)
