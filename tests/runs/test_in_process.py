"""The executor of `train`: what is left in the middle goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

from sparsedial.runs import in_process
from sparsedial.runs.execute import execute
from sparsedial.runs.executor import Ended, Moved, Task
from sparsedial.runs.in_process import InProcess
from sparsedial.runs.run_store import RunStore
from tests.runs.tiny import finish, job_of


def test_a_run_that_is_left_goes_on_at_its_next_step_and_ends_as_if_it_was_never_left(
    small_text, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(in_process, "WAIT_SECONDS", 0.0)  # an event for every step
    job, store = job_of(small_text), RunStore(tmp_path / "parts")
    group = (Task(job=job, label="one"),)
    executor = InProcess(text=small_text, store=store)
    with executor:
        executor.submit(group)
        left = [executor.wait() for _ in range(17)][-1]
    assert [event.step for event in left if isinstance(event, Moved)] == [16]
    assert executor.wait() == []  # the run is forgotten
    steps: list[int] = []
    with executor:
        executor.submit(group)
        while not isinstance((event := executor.wait()[0]), Ended):
            steps.append(event.step)
    assert steps[0] == 17
    expected = finish(execute(job, small_text, RunStore(tmp_path / "whole")))
    assert event.runs[0].validation_loss == expected.validation_loss
