"""`run.json` and `metrics.jsonl`: one training run, its inputs and its results."""

from __future__ import annotations

from typing import ClassVar, Literal

from sparsedial.records.evaluation import CheckpointName
from sparsedial.records.probes import ProbeScores
from sparsedial.records.quantities import Load, Sparsity
from sparsedial.records.recipe import OptimizerName, Recipe
from sparsedial.records.record import Record
from sparsedial.records.token_selection import ReferenceModelCost, TokenSelection
from sparsedial.records.trained_for import DialLoss, TrainedFor
from sparsedial.shape.shape import Shape

RUN_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"


class Event(Record, frozen=True, kw_only=True):
    """A loss spike that was undone."""

    kind: Literal["spike"]
    step: int
    loss: float | None  # null where it was not finite
    batch_skipped: int
    back_to_step: int


class Mesh(Record, frozen=True, kw_only=True):
    """How the ranks of a run are arranged; the product is their number."""

    data: int  # that read other windows of each batch
    shard: int  # that share one copy of the weights
    expert: int  # that share the experts


class RankHost(Record, frozen=True, kw_only=True):
    """A machine of a run."""

    name: str
    ranks: int  # that ran there


class RunRanks(Record, frozen=True, kw_only=True):
    """The processes that trained a run together, as they were at its end."""

    count: int
    mesh: Mesh
    backend: str  # that carried their messages
    hosts: tuple[RankHost, ...]


class SavedStates(Record, frozen=True, kw_only=True):
    """The states to resume from that a run has saved."""

    kept: int  # how many, over all its starts
    seconds: float  # in which training waited for them
    overlap_cost: float | None  # of steps beside a saving, over steps alone
    overlap_cost_reason: str | None
    bytes: int | None  # of the newest; null where none was saved


class Resume(Record, frozen=True, kw_only=True):
    """A start of a run that went on from a saved state."""

    step: int  # the first that was taken
    ranks: int  # that went on
    reason: Literal["stopped", "lost"]  # what ended the start before: it was stopped, or it left without a word


class RunInputs(Record, frozen=True, kw_only=True):
    """The inputs of a run, and what follows from them before the first step."""

    hash: str  # of the inputs: the run's name
    trunk: str | None  # the hash that branches of one run share; null where its schedule allows none
    shape: Shape
    recipe: Recipe
    recipe_version: int
    text_digest: str
    tokenizer: str  # its digest
    device: str
    threads: int
    kernels: str
    tokens: int  # training tokens
    flops: int
    total_parameters: int
    active_parameters: int
    sparsity: Sparsity
    dial: TrainedFor | None = None  # null where every step had the shape's top_k
    start: CheckpointName | None = None  # whose weights it began with; null where they were random
    token_selection: TokenSelection | None = None  # null where the loss counted all positions


class Run(RunInputs, frozen=True, kw_only=True):
    """One training run; a missing value is null, with a reason."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = (
        "probes",
        "dial",
        "start",
        "dial_losses",
        "token_selection",
        "reference_cost",
        "ranks",
        "checkpoints",
        "resumes",
    )

    status: Literal["finished", "diverged"]
    reason: str | None
    steps_done: int
    train_loss: float | None  # mean of the last twentieth of the steps; with a dial at the number that it ends with
    validation_loss: float | None  # this and the others at the shape's top_k, with a dial too
    validation_bits_per_byte: float | None
    test_loss: float | None  # null where it was not scored on test text, as a study's cells are not
    test_bits_per_byte: float | None
    seconds: float  # in training steps, without scoring and saving
    median_step_seconds: float
    evaluation_seconds: float
    joules: float | None
    joules_source: str
    peak_memory_bytes: int
    expert_load: Load | None  # null for a dense model
    repeats: float  # how many times the train split was read
    alone: bool  # whether nothing else of ours ran on the machine
    machine_busy: float | None  # share of all cores that was busy during the run; null where it cannot be read
    trunk_steps_shared: int  # steps that came from a shorter run with the same trunk
    events: tuple[Event, ...]
    probes: ProbeScores | None = None  # null where its text has none, or where it diverged
    dial_losses: tuple[DialLoss, ...] | None = (
        None  # at each number of the dial; null without one, or where it diverged
    )
    reference_cost: ReferenceModelCost | None = None  # beside `flops` and `seconds`; null where no tokens are selected
    ranks: RunRanks | None = None  # null where one process trained it
    checkpoints: SavedStates | None = None  # null in files of an earlier version, as the next
    resumes: tuple[Resume, ...] | None = None

    @property
    def optimizer(self) -> OptimizerName:
        """The optimizer of its matrices."""
        return self.recipe.optimizer

    @property
    def finished(self) -> bool:
        """Whether it was trained to its end."""
        return self.status == "finished"

    @property
    def total_flops(self) -> float:
        """Of its training, and of the reference model that selected its tokens."""
        return self.flops + (self.reference_cost.flops if self.reference_cost else 0.0)

    @property
    def total_seconds(self) -> float:
        """Of its training steps, and of the reference model."""
        return self.seconds + (self.reference_cost.seconds if self.reference_cost else 0.0)

    def cost(self, currency: str) -> float | None:
        """Its cost in FLOPs, seconds or joules; None where it is not known."""
        return {"flops": self.flops, "seconds": self.seconds, "joules": self.joules}[currency]


class Metric(Record, frozen=True, kw_only=True):
    """A line of `metrics.jsonl`: one training step; null where a number was not finite or, of the routers, not read."""

    index: int
    loss: float | None  # cross-entropy, nats per token
    gradient_norm: float | None
    learning_rate: float
    seconds: float
    tokens: int
    max_over_mean: float | None  # of the least balanced router, at some steps of a sparse model
    dead_experts: int | None
    entropy: float | None
    bias_drift: float | None  # the largest routing bias of all routers
