"""`state.json`: where an unfinished run stands."""

from __future__ import annotations

from typing import ClassVar

from sparsedial.records.record import Record
from sparsedial.records.run import Event, Metric, Resume


class Progress(Record, frozen=True, kw_only=True):
    """A run's own numbers up to its next step, beside what its tensors say."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = ("states", "states_seconds", "resumes", "stopped")

    next_step: int
    seconds: float  # in training steps
    joules: float
    step_seconds: tuple[float, ...]
    losses: tuple[float, ...]  # nats per token
    metrics: tuple[Metric, ...]
    skipped: tuple[int, ...]  # batches
    events: tuple[Event, ...]
    shared: int  # steps of another run's trunk
    states: int = 0  # that were saved, this one included
    states_seconds: float = 0.0  # in which training waited for them, this one not included
    resumes: tuple[Resume, ...] = ()
    stopped: bool = False  # whether the run was stopped with this state


class StateFile(Record, frozen=True, kw_only=True):
    """`state.json`: the run that a state belongs to, its tensors' file, and its numbers."""

    key: str  # hash of the run, or of the trunk
    tensors: str  # the file's name in the same folder
    sha256: str  # of that file
    next_step: int
    progress: Progress
