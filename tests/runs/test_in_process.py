"""The executor of `train`: what is left in the middle goes on where it stopped."""

from __future__ import annotations

import contextlib
import math
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sparsedial.machine.card import CardMemory
from sparsedial.runs import in_process
from sparsedial.runs.card_memory import NoRoom, counted_bytes
from sparsedial.runs.execute import execute
from sparsedial.runs.executor import Ended, Moved, Task
from sparsedial.runs.in_process import InProcess
from sparsedial.runs.run_store import RunStore
from sparsedial.training.loop import Step
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


def ended(executor: InProcess, tasks: list[Task]) -> dict[str, float | None]:
    """The validation losses of tasks by their labels."""
    found = {}
    with executor:
        for task in tasks:
            executor.submit((task,))
        while len(found) < len(tasks):
            for event in executor.wait():
                if isinstance(event, Ended):
                    found[event.group[0].label] = event.runs[0].validation_loss
    return found


@pytest.fixture(params=["a CPU's", "a GPU's"])
def device(request, monkeypatch) -> str:
    """Whose way steps take: a CPU's, or replayed and read late as a GPU's."""
    if request.param == "a GPU's":
        request.getfixturevalue("on_a_gpu")
        monkeypatch.setattr("sparsedial.training.loop.why_not", lambda *_: None)
        monkeypatch.setattr("sparsedial.training.loop.READING_SECONDS", math.inf)
    return request.param


def test_runs_at_once_end_as_each_alone(small_text, tmp_path: Path, monkeypatch, device):
    """Replayed where they take a GPU's way; and all of them move before the first ends."""
    monkeypatch.setattr(in_process, "TURN_SECONDS", 0.0)
    jobs = [job_of(small_text, experts, seed=seed, batch=4) for experts, seed in ((8, 0), (8, 1), (0, 0))]
    tasks = [Task(job=job, label=f"{number}") for number, job in enumerate(jobs)]
    alone = ended(InProcess(text=small_text, store=RunStore(tmp_path / "alone")), tasks)
    moved: list[str] = []
    executor = InProcess(text=small_text, store=RunStore(tmp_path / "at once"), most=3)
    turn = in_process._Open.turn

    def noted(one, until):
        event = turn(one, until)
        moved.append(f"{one.group[0].label} {type(event).__name__}")
        return event

    monkeypatch.setattr(in_process._Open, "turn", noted)
    assert ended(executor, tasks) == alone
    first = next(index for index, word in enumerate(moved) if word.endswith("Ended"))
    assert {word.split()[0] for word in moved[:first]} == {"0", "1", "2"}
    assert ("0 NoneType" in moved) == (device == "a GPU's")  # a pause without a step: the device works


def test_a_timed_group_is_alone_among_runs_at_once(small_text, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(in_process, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(in_process, "TURN_SECONDS", 0.0)  # a step each: else a run could end in its first turn
    tasks = [
        Task(job=job_of(small_text, 0, seed=seed, steps=12), label=f"{seed}", alone=seed == 1) for seed in range(3)
    ]
    executor = InProcess(text=small_text, store=RunStore(tmp_path), most=3)
    together, done = set(), 0
    with executor:
        for task in tasks:
            executor.submit((task,))
        while done < 3:
            done += any(isinstance(event, Ended) for event in executor.wait())
            together.add(tuple(one.group[0].label for one in executor._open))
    assert together == {("0",), ("1",), ("2",), ()}


def steps_seen(executor: InProcess, group: tuple[Task, ...], most: int) -> dict[str, list[int]]:
    """The steps of a group's runs by label, until it ended or this many events came."""
    seen: dict[str, list[int]] = {task.label: [] for task in group}
    with executor:
        executor.submit(group)
        for _ in range(most):
            for event in executor.wait():
                if isinstance(event, Ended):
                    return seen
                if isinstance(event, Moved):
                    seen[event.task.label].append(event.step)
    return seen


@pytest.mark.parametrize(("left", "ends"), [(24, False), (52, True)])  # both in the middle; after the short one's end
def test_timed_runs_in_turns_go_on_together_or_begin_again(small_text, tmp_path: Path, monkeypatch, left, ends):
    monkeypatch.setattr(in_process, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr("sparsedial.runs.turns.take_turns.__defaults__", (1e-4,))  # a step each
    store = RunStore(tmp_path)
    short, long = (Task(job=job_of(small_text, steps=steps), label=f"{steps}", alone=True) for steps in (20, 40))
    seen = steps_seen(InProcess(text=small_text, store=store), (short, long), left)
    assert bool(store.find(short.job.hash)) == ends
    assert seen["40"] == list(range(len(seen["40"])))
    again = steps_seen(InProcess(text=small_text, store=store), (short, long), 99)
    assert {name: steps[0] for name, steps in again.items()} == {
        name: 0 if ends else len(steps) for name, steps in seen.items()
    }


@pytest.mark.usefixtures("device")
def test_runs_at_once_that_are_left_go_on(small_text, tmp_path: Path, monkeypatch):
    """Also where a GPU was given steps that are not read yet: its weights are ahead of the run's numbers then."""
    monkeypatch.setattr(in_process, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(in_process, "TURN_SECONDS", 0.0)
    jobs = [job_of(small_text, seed=seed) for seed in range(2)]
    tasks = [Task(job=job, label=f"{job.recipe.seed}") for job in jobs]
    expected = ended(InProcess(text=small_text, store=RunStore(tmp_path / "whole")), tasks)
    executor = InProcess(text=small_text, store=RunStore(tmp_path / "parts"), most=2)
    with executor:
        for task in tasks:
            executor.submit((task,))
        for _ in range(6):  # of a GPU: one step is given, read, two given, read one by one, and four given
            executor.wait()
    assert ended(executor, tasks) == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_runs_at_once_on_a_gpu_end_as_each_alone(small_text, tmp_path: Path):
    """Each on its stream, all left in the middle once; to the rounding of sums whose order a GPU does not promise."""
    given = [(experts, seed) for seed in (0, 1) for experts in (8, 0)]
    jobs = [replace(job_of(small_text, experts, seed=seed, steps=200), device="cuda") for experts, seed in given]
    tasks = [Task(job=job, label=f"{number}") for number, job in enumerate(jobs)]
    alone = ended(InProcess(text=small_text, store=RunStore(tmp_path / "alone")), tasks)
    executor = InProcess(text=small_text, store=RunStore(tmp_path / "at once"), most=4)
    with executor:
        for task in tasks:
            executor.submit((task,))
        executor.wait()
    assert ended(executor, tasks) == pytest.approx(alone, rel=1e-2)


class Filled:
    """What stands for three runs on a GPU: the second finds no room at its first step, or only after some."""

    def __init__(self, fails: set[tuple[str, int]]) -> None:
        self.fails, self.seen = fails, list[str]()
        self.models: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()

    @contextlib.contextmanager
    def opened(self, group, *_):
        yield self._steps(group[0].label)

    def _steps(self, label: str):
        model = torch.nn.Linear(1, 1)
        self.models.add(model)
        for index in range(4):
            if (label, index) in self.fails:
                self.fails.discard((label, index))
                raise NoRoom("no room") from torch.OutOfMemoryError("CUDA out of memory")
            self.seen.append(f"{label}{index}")
            yield 0, Step(index, 1.0, 1.0, 0.1, 0.1, 8), 1.0


def executor_of(small_text, monkeypatch, filled: Filled, count: int) -> InProcess:
    monkeypatch.setattr(in_process, "opened", filled.opened)
    monkeypatch.setattr(in_process, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(in_process, "TURN_SECONDS", 0.0)
    executor = InProcess(text=small_text, store=SimpleNamespace(read=lambda _: None), most=2)  # type: ignore[arg-type]
    for number in range(count):
        executor.submit((Task(job=job_of(small_text, seed=number), label="abc"[number]),))
    return executor


@pytest.mark.parametrize("at", [0, 2])
def test_a_run_that_finds_no_room_beside_others_waits_until_one_ended(small_text, monkeypatch, at):
    """What it held is free before the next event; runs behind it wait too."""
    filled = Filled({("b", at)})
    executor, done = executor_of(small_text, monkeypatch, filled, 3), list[str]()
    while len(done) < 3:
        for event in executor.wait():
            done += [event.group[0].label] if isinstance(event, Ended) else []
        assert len(filled.models) == len(executor._open)
    assert done == ["a", "b", "c"]
    order = "".join(filled.seen)
    assert order.index("a3") < order.rindex("b0")
    assert order.index("a3") < order.index("c0")


def test_a_run_that_finds_no_room_alone_is_refused(small_text, monkeypatch):
    executor = executor_of(small_text, monkeypatch, Filled({("a", 2)}), 1)
    assert [executor.wait() for _ in range(2)]
    with pytest.raises(NoRoom):
        executor.wait()


@pytest.mark.parametrize(("holds", "together"), [(2.5, 2), (5.5, 5), (0.5, 1)])
def test_no_more_runs_at_once_than_a_gpu_holds(small_text, monkeypatch, holds, together):
    """What does not fit alone begins all the same: the run itself is refused, in words."""
    jobs = [replace(job_of(small_text, seed=seed), device="cuda") for seed in range(7)]
    free = int(holds * float(counted_bytes(jobs[0]).total))
    monkeypatch.setattr(in_process, "card_memory", lambda: CardMemory(held=10**11, free=free, others=0))

    @contextlib.contextmanager
    def steps(*_):
        yield iter([(0, Step(index, 1.0, 1.0, 0.1, 0.1, 8), 1.0) for index in range(3)])

    monkeypatch.setattr(in_process, "opened", steps)
    monkeypatch.setattr(in_process, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(in_process, "TURN_SECONDS", 0.0)
    executor = InProcess(text=small_text, store=SimpleNamespace(read=lambda _: None), most=5)  # type: ignore[arg-type]
    most, done = 0, 0
    with executor:
        for job in jobs:
            executor.submit((Task(job=job, label=f"{job.recipe.seed}"),))
        while done < len(jobs):
            done += sum(isinstance(event, Ended) for event in executor.wait())
            most = max(most, len(executor._open))
    assert most == together
