"""What a command would cost, without running it."""

from __future__ import annotations

from sparsedial.records.plan import MemoryParts
from sparsedial.records.quantities import Interval
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


class RankMemory(Record, frozen=True, kw_only=True):
    """Bytes that one rank holds; the most of each part, of which not all are held at once."""

    weights: int  # all of the model's, and the copies that products read
    gradients: int  # those that have not gone to their owners yet, and the sums of what this rank owns
    optimizer: int  # moments of what this rank owns
    activations: float  # at the peak of a step with its share of the batch, counted part by part
    buffers: int  # the model's tables and routing biases, and the messages under way as they are sent and received


class RankBytes(Record, frozen=True, kw_only=True):
    """Bytes of the messages of a step, by what they do, with the values of all ranks.

    Of N ranks each sends (N - 1) / N of an all-to-all, and over a ring as much of an all-gather or a reduce-scatter and
    twice as much of an all-reduce. On CPUs an all-to-all carries new weights too.
    """

    all_gather: int  # new weights from their owners
    reduce_scatter: int  # gradients to their owners, on GPUs
    all_reduce: int  # loads of the experts, loss and norm
    all_to_all: int  # gradients to their owners, on CPUs


class RankCosts(Record, frozen=True, kw_only=True):
    """What one of the processes that train a model holds, and takes part in sending."""

    rank: int
    parameters: int  # that it owns: it alone holds their moments and moves them; the weights it holds all
    memory_bytes: RankMemory
    bytes_per_step: RankBytes  # of a step in which all weights learn
    step_seconds: Interval | None
    step_seconds_reason: str | None


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
    ranks: tuple[RankCosts, ...] | None  # null where one process trains alone


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


class PruneDryRun(Record, frozen=True, kw_only=True):
    """What turning parts of a checkpoint off would cost, or comparing several choices."""

    dry_run: bool = True
    total_parameters: int  # of the checkpoint
    active_parameters: int
    keep: float | None  # the share that stays; null as the next two
    left_total_parameters: int | None
    left_active_parameters: int | None
    left_reason: str | None  # why they are not known yet
    choices: int  # that are scored beside the original, random ones among them
    search_steps: int  # shares that are tried; 0 where the share is known
    calibration_tokens: int
    scored_tokens: int  # of all texts, by the original and by each choice
    seconds: float
    not_counted: tuple[str, ...]
    memory_bytes: int | None  # of the weights that are held at once
    memory_bytes_reason: str | None
    disk_bytes: int | None  # of the weights that are written; null as `keep`


class DialDryRun(Record, frozen=True, kw_only=True):
    """What measuring the settings of a checkpoint would cost."""

    dry_run: bool = True
    total_parameters: int
    active_parameters: int  # at the default
    settings: tuple[str, ...]
    calibration_tokens: int  # that gates are measured on; 0 where no setting needs them
    scored_tokens: int  # at each setting
    seconds: float
    not_counted: tuple[str, ...]
    memory_bytes: int  # of the weights
