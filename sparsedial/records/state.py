"""`state.json`: where an unfinished run stands."""

from __future__ import annotations

from sparsedial.records.record import Record
from sparsedial.records.run import Event, Metric


class Progress(Record, frozen=True, kw_only=True):
    """A run's own numbers up to its next step, beside what its tensors say."""

    next_step: int
    seconds: float  # in training steps
    joules: float
    step_seconds: tuple[float, ...]
    losses: tuple[float, ...]  # nats per token
    metrics: tuple[Metric, ...]
    skipped: tuple[int, ...]  # batches
    events: tuple[Event, ...]
    shared: int  # steps of another run's trunk


class StateFile(Record, frozen=True, kw_only=True):
    """`state.json`: the run that a state belongs to, its tensors' file, and its numbers."""

    key: str  # hash of the run, or of the trunk
    tensors: str  # the file's name in the same folder
    sha256: str  # of that file
    next_step: int
    progress: Progress
