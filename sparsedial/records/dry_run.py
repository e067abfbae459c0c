"""What a command would cost, without running it."""

from __future__ import annotations

from sparsedial.records.plan import MemoryParts
from sparsedial.records.record import Record
from sparsedial.records.token_selection import ReferenceModelCost


class StudyDryRun(Record, frozen=True, kw_only=True):
    """What a study would train and cost."""

    dry_run: bool = True
    cells: int
    largest_total_parameters: int
    budgets_flops: tuple[float, ...]
    flops: float
    seconds: float
    seconds_low: float
    seconds_high: float
    probe_seconds: float  # of them, to score the cells on probes; 0 without probes
    reference_cost: ReferenceModelCost | None  # of FLOPs and seconds; null where no tokens are selected
    kept_runs: int  # on kept shares of the text, beside the cells; 0 without a selection
    kept_seconds: float  # of them, to train and score these
    select_seconds: float  # of them, to select the shares
    joules: float
    joules_source: str
    memory_bytes: float
    dollars: float | None
    dollars_reason: str | None


class TrainDryRun(Record, frozen=True, kw_only=True):
    """What a training run would cost; null, with a reason, where it was not measured."""

    dry_run: bool = True
    total_parameters: int
    active_parameters: int
    tokens: int
    flops: int
    memory_parts: MemoryParts
    memory_bytes: float
    guard_copy_bytes: float  # the copy of weights and moments that a guarded run returns to after a spike
    memory_source: str
    seconds: float | None
    seconds_reason: str | None
    joules: float | None
    joules_source: str | None
    joules_reason: str | None
    dollars: float | None
    dollars_reason: str | None
    tokens_asked: float | None  # null where steps were given
    reference_cost: ReferenceModelCost | None  # of FLOPs and seconds; null where no tokens are selected


class EffectDryRun(Record, frozen=True, kw_only=True):
    """What it would cost to measure the effect of a selection, which is not made yet."""

    dry_run: bool = True
    parts: int  # kept, random and full
    seeds: int
    runs: int
    budgets_flops: tuple[float, ...]
    total_parameters: tuple[int, ...]  # of the models of each budget
    tokens: tuple[int, ...]  # that each of their runs reads
    flops: float
    seconds: float
    not_counted: str
    joules: float
    joules_source: str
    memory_bytes: float
    dollars: float | None
    dollars_reason: str | None
