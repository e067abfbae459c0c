"""`profile.json`: seconds, joules and bytes of a training step on one machine."""

from __future__ import annotations

from typing import ClassVar

from sparsedial.records.quantities import Machine
from sparsedial.records.recipe import OptimizerName
from sparsedial.records.record import Record
from sparsedial.shape.shape import Shape

PROFILE_FILE = "profile.json"


class StepTiming(Record, frozen=True, kw_only=True):
    """A timed training step, and the features that its time is fitted to."""

    shape: Shape
    d_model: int
    experts: int
    features: dict[str, float]
    median_seconds: float
    low_seconds: float  # 10th percentile
    high_seconds: float  # 90th percentile
    count: int


class StepMemory(Record, frozen=True, kw_only=True):
    """A training step whose peak memory was measured, and its counted parts."""

    shape: Shape
    batch: int
    context: int
    state_bytes: float
    activation_bytes: float
    peak_bytes: float


class MemoryFile(Record, frozen=True, kw_only=True):
    """Factors on the counted parts of memory, and the bytes of the process itself."""

    process_bytes: float
    state_factor: float
    activation_factor: float
    median_relative_error: float  # over shapes that are left out of the fit in turn
    max_relative_error: float
    rows: tuple[StepMemory, ...]


class AtOnceTiming(Record, frozen=True, kw_only=True):
    """Several runs of one shape at once in one process of a GPU, beside one alone."""

    d_model: int
    experts: int
    step_seconds: float  # of one alone
    start_seconds: float  # of each: its weights, its first steps and its graphs
    runs: int
    times_one: float  # the steps of all of them, over those of one alone in the same time


class ProfileFile(Record, frozen=True, kw_only=True):
    """A linear model of step time over physical features, with its error on shapes that were left out of the fit."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = ("memory", "at_once", "optimizer")

    machine: Machine
    device: str
    threads: int
    dtype: str
    optimizer: OptimizerName = "adamw"  # of the timed steps
    batch: int
    context: int
    coefficients: dict[str, float]  # seconds per unit of the feature
    median_relative_error: float  # over shapes that are left out of the fit in turn
    max_relative_error: float
    error_quantile: float  # 90 % of the left-out shapes have a smaller error
    watts: float
    watts_source: str
    metered: bool
    rows: tuple[StepTiming, ...]
    memory: MemoryFile | None = None  # null where no peaks were measured: bytes are then only counted
    at_once: tuple[AtOnceTiming, ...] = ()  # none on a CPU, where each run has a process and a core of its own
