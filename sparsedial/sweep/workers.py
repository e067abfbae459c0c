"""Local workers: processes of one thread each that take runs from a queue and do not fight for cores."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from sparsedial.errors import UserError
from sparsedial.store import RunStore
from sparsedial.training.run import Job

PROGRESS_SECONDS = 0.5  # between two messages of a worker
TURN_SECONDS = 1.0  # timed runs that share the machine change places this often
LEAVE_SECONDS = 5.0  # that a stopped worker has to end its step and save its run's state
MOST_TRIES = 3  # a worker that dies takes its run back to the queue


@dataclass(frozen=True, kw_only=True)
class Task:
    """A run to be done, and how: what its inputs are stands in `job` alone."""

    job: Job
    label: str
    splits: tuple[str, ...] = ("validation",)
    evaluation_tokens: int | None = None
    alone: bool = False
    keep_checkpoint: bool = False
    tag: Any = None  # the caller's own mark

    def done(self, store: RunStore) -> dict[str, Any] | None:
        """The record that already answers this task, or None."""
        record = store.find(self.job.hash)
        if record is None or (self.alone and not record["alone"]):
            return None
        if record["status"] == "finished" and "test" in self.splits and record["test_loss"] is None:
            return None
        if self.keep_checkpoint and record["status"] == "finished":
            return record if (store.path(self.job.hash) / "checkpoint" / "config.json").exists() else None
        return record


class Listener(Protocol):
    """Who hears of progress."""

    def cell(self, task: Task, message: dict[str, Any]) -> None:
        """A running task moved."""
        ...

    def done(self, task: Task, record: dict[str, Any]) -> None:
        """A task ended, or was found done."""
        ...


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    group: tuple[Task, ...] = ()
    tries: dict[str, int] = field(default_factory=dict)


def run_tasks(
    tasks: Iterable[Task],
    *,
    store: RunStore,
    text_folder: Path,
    workers: int,
    listener: Listener,
    follow: Callable[[Task, dict[str, Any]], Iterable[Task]] = lambda task, record: (),
) -> dict[str, dict[str, Any]]:
    """Do every task, each in its own worker, longest first as given; `follow` may answer a record with more tasks.

    Tasks whose record is already in the store are not done again. Returns records by run hash.

    Raises: UserError where a run cannot be done (a full disk, say) or keeps killing its worker.
    """
    return _drive([(task,) for task in tasks], store, text_folder, workers, listener, follow)


def run_in_turn(
    group: tuple[Task, ...], *, store: RunStore, text_folder: Path, listener: Listener
) -> dict[str, dict[str, Any]]:
    """Do a few timed tasks in one process that has the machine to itself, in turns of about a second.

    Whatever else the machine does meanwhile falls on all of them alike. A group that is partly done is done again
    as a whole, so that its times compare.
    """
    return _drive([group], store, text_folder, 1, listener, lambda task, record: ())


def _drive(
    groups: list[tuple[Task, ...]],
    store: RunStore,
    text_folder: Path,
    workers: int,
    listener: Listener,
    follow: Callable[[Task, dict[str, Any]], Iterable[Task]],
) -> dict[str, dict[str, Any]]:
    records: dict[str, dict[str, Any]] = {}
    queue: deque[tuple[Task, ...]] = deque()
    tries: dict[str, int] = {}

    def accept(task: Task, record: dict[str, Any]) -> None:
        records[task.job.hash] = record
        listener.done(task, record)
        for more in follow(task, record):
            enqueue((more,))

    def enqueue(group: tuple[Task, ...]) -> None:
        found = [task.done(store) for task in group]
        if all(record is not None for record in found):
            for task, record in zip(group, found, strict=True):
                accept(task, record)  # type: ignore[arg-type]
        else:
            queue.append(group)

    for group in groups:
        enqueue(group)
    if not queue:
        return records
    with _pool(workers, text_folder, store.folder) as pool:
        while queue or any(worker.group for worker in pool):
            _hand_out(pool, queue, text_folder, store.folder)
            for worker in _ready(pool):
                _hear(worker, pool, queue, tries, accept, listener, text_folder, store.folder)
    return records


@contextlib.contextmanager
def _pool(workers: int, text_folder: Path, runs_folder: Path) -> Iterator[list[_Worker]]:
    pool = [_start(text_folder, runs_folder) for _ in range(workers)]
    try:
        yield pool
    finally:
        for worker in pool:
            worker.pipe.close()  # an idle worker leaves at once, a busy one at its next message, its state saved
        end = time.monotonic() + LEAVE_SECONDS
        for worker in pool:
            worker.process.join(max(0.0, end - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()


def _start(text_folder: Path, runs_folder: Path) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, text_folder, runs_folder, os.getpid()), daemon=True)
    with held_back(signal.SIGINT):
        process.start()
    theirs.close()
    return _Worker(process=process, pipe=ours)


@contextlib.contextmanager
def held_back(number: signal.Signals) -> Iterator[None]:
    """A signal reaches this process after the block, and never one that is started in it: Ctrl-C is the parent's, who
    ends its workers, and a child that is still importing would print where it was.
    """
    resource_tracker.ensure_running()  # lets signals in again when it starts, so it starts before
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _hand_out(pool: list[_Worker], queue: deque[tuple[Task, ...]], text_folder: Path, runs_folder: Path) -> None:
    for place, worker in enumerate(pool):
        if not worker.group and queue:
            if not worker.process.is_alive():
                pool[place] = worker = _start(text_folder, runs_folder)
            worker.group = queue.popleft()
            with contextlib.suppress(BrokenPipeError):
                worker.pipe.send(worker.group)


def _ready(pool: list[_Worker]) -> list[_Worker]:
    busy = {worker.pipe: worker for worker in pool if worker.group}
    return [busy[pipe] for pipe in wait(list(busy), timeout=1.0)]  # type: ignore[index]


def _hear(
    worker: _Worker,
    pool: list[_Worker],
    queue: deque[tuple[Task, ...]],
    tries: dict[str, int],
    accept: Callable[[Task, dict[str, Any]], None],
    listener: Listener,
    text_folder: Path,
    runs_folder: Path,
) -> None:
    try:
        kind, place, message = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        _replace(worker, pool, queue, tries, text_folder, runs_folder)
        return
    if kind == "step":
        listener.cell(worker.group[place], message)
    elif kind == "error":
        worker.group = ()
        raise UserError(message["problem"], hint=message["hint"])
    elif kind == "bug":
        worker.group = ()
        raise RuntimeError(f"a worker failed:\n{message}")
    else:
        group, worker.group = worker.group, ()
        for task, record in zip(group, message, strict=True):
            accept(task, record)


def _replace(
    worker: _Worker,
    pool: list[_Worker],
    queue: deque[tuple[Task, ...]],
    tries: dict[str, int],
    text_folder: Path,
    runs_folder: Path,
) -> None:
    group, worker.group = worker.group, ()
    name = group[0].job.hash
    tries[name] = tries.get(name, 0) + 1
    if tries[name] >= MOST_TRIES:
        raise UserError(
            f"run {name[:16]} ({group[0].label}) ended its worker {MOST_TRIES} times",
            hint="there may be too little memory: fewer --workers, or --max-total-parameters",
        )
    queue.appendleft(group)
    worker.process.join(1)
    pool[pool.index(worker)] = _start(text_folder, runs_folder)


def _work(pipe: Connection, text_folder: Path, runs_folder: Path, parent: int) -> None:
    """A worker's life: take a group, train it, send its records; leave when the parent is gone."""
    import torch

    from sparsedial.text.prepare import open_text

    torch.set_num_interop_threads(1)
    text = open_text(text_folder)
    store = RunStore(runs_folder)
    while True:
        try:
            group = pipe.recv()
        except (EOFError, ConnectionError):
            return
        try:
            torch.set_num_threads(group[0].job.threads)
            pipe.send(("done", 0, _train(group, text, store, pipe, parent)))
        except UserError as error:
            pipe.send(("error", 0, {"problem": error.problem, "hint": error.hint}))
        except ConnectionError:  # nobody listens any more
            return
        except Exception:  # sent whole to the parent, which raises it
            import traceback

            pipe.send(("bug", 0, traceback.format_exc()))


def _train(group: tuple[Task, ...], text: Any, store: RunStore, pipe: Connection, parent: int) -> list[dict[str, Any]]:
    from sparsedial.sweep.execute import execute

    steps = [
        execute(
            task.job,
            text,
            store,
            splits=task.splits,
            evaluation_tokens=task.evaluation_tokens,
            alone=task.alone,
            keep_checkpoint=task.keep_checkpoint,
        )
        for task in group
    ]
    done = [False] * len(group)
    spent = [0.0] * len(group)
    with contextlib.ExitStack() as open_runs:
        for run in steps:
            open_runs.callback(run.close)  # one that is left saves its state
        while not all(done):
            for place, run in enumerate(steps):
                if not done[place]:
                    limit = TURN_SECONDS if len(group) > 1 else None
                    began = time.monotonic()
                    done[place] = _turn(run, place, pipe, parent, spent[place], limit)
                    spent[place] += time.monotonic() - began
    return [store.read(task.job.hash) for task in group]


def _turn(run: Any, place: int, pipe: Connection, parent: int, spent: float, limit: float | None) -> bool:
    """Steps of one run, for `limit` seconds or to its end; whether it has ended."""
    start = said = time.monotonic()
    while limit is None or time.monotonic() - start < limit:
        try:
            step = next(run)
        except StopIteration:
            return True
        now = time.monotonic()
        if now - said >= PROGRESS_SECONDS:
            if os.getppid() != parent:
                raise BrokenPipeError
            pipe.send(("step", place, {"step": step.index, "loss": step.loss, "seconds": spent + now - start}))
            said = now
    return False
