"""The interface of executors: groups of tasks are submitted, and come back with their runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from sparsedial.records.run import Run
from sparsedial.runs.job import Job

LOST_SHARE = 0.2  # of a run's steps, after which a loss that is too large ends it

Split = Literal["validation", "test"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A run to execute, and how. The run's inputs are those of the job and nothing else."""

    job: Job
    label: str
    splits: tuple[Split, ...] = ("validation",)  # the splits that score it
    evaluation_tokens: int | None = None  # of each split; None is all
    probes: bool = False  # whether it is also scored on the probes that are mixed into its text
    alone: bool = False  # whether nothing else may run, so that its seconds can be compared
    keep_checkpoint: bool = False
    keep_trunk: bool = False  # whether the state at the end of its trunk is kept, for a longer run to continue

    @property
    def curve(self) -> str:
        """The name of its curve in logs: in one folder, runs of other inputs may have the same label."""
        return f"{self.label}, {self.job.hash[:8]}"


Group = tuple[Task, ...]  # tasks that one worker runs in turns of about a second; most groups have one task


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A task has made progress."""

    task: Task
    step: int
    loss: float
    steps_per_second: float  # since it was started or resumed


@dataclass(frozen=True, kw_only=True)
class Ended:
    """All tasks of a group ended; the runs are in the order of the tasks."""

    group: Group
    runs: tuple[Run, ...]
    host: str | None = None  # of the worker, where it is not this machine


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A group's worker died; the saved states of its runs are still there."""

    group: Group
    host: str | None = None  # of the worker, where it is not this machine


Event = Moved | Ended | Lost


class Executor(Protocol):
    """Executes groups of tasks, several at a time, in the order in which they are submitted.

    It is a context manager. It may start workers when it is entered. When it is left it ends them, and unfinished runs
    save their state.
    """

    def __enter__(self) -> Executor: ...

    def __exit__(self, *reason: object) -> None: ...

    def submit(self, group: Group, *, first: bool = False) -> None:
        """Add a group to the end of the queue, or to its front; it starts when a worker is free."""
        ...

    def wait(self) -> list[Event]:
        """The events since the last call; waits a short time for one.

        Raises: UserError where a run cannot be done, for example because the disk is full.
        """
        ...
