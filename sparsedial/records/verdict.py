"""The verdict: sparse or dense at equal cost, with the models that were compared."""

from __future__ import annotations

from typing import ClassVar, Literal

from sparsedial.records.quantities import Amount, Gap, Interval, Sparsity
from sparsedial.records.recipe import OptimizerName
from sparsedial.records.record import Record
from sparsedial.shape.shape import Shape

Winner = Literal["sparse", "dense", "undecided"]
Basis = Literal["measured", "estimated"]
NamedBy = Literal["law", "measured", "both"]  # what named a model for a verdict: the law, or the losses of runs


class Side(Record, frozen=True, kw_only=True):
    """One family's model: its shape, and means over its seeds."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = ("named_by", "sent_because", "optimizer")

    shape: Shape
    sparsity: Sparsity
    tokens: int
    total_parameters: int
    active_parameters: int
    loss: Interval  # on test text, nats per token
    bits_per_byte: float
    flops: float
    seconds: float
    joules: float | None
    joules_source: str
    optimizer: OptimizerName = "adamw"
    learning_rate: float
    checkpoint: str | None  # its folder; null until the study says where
    runs: tuple[str, ...]  # hashes of its runs
    named_by: NamedBy | None = None  # null in files of earlier versions, where it was the law
    sent_because: str | None = None  # null where `named_by` is

    def cost(self, currency: str) -> float | None:
        """The mean cost of its runs; None where it is not known."""
        return {"flops": self.flops, "seconds": self.seconds, "joules": self.joules}[currency]


class CostMiss(Record, frozen=True, kw_only=True):
    """By how much a cost missed the budget, and the nats that this may explain."""

    words: str
    worth_nats: float | None  # null where no law says, or the miss is too large for one


class Verdict(Record, frozen=True, kw_only=True):
    """Which family is better at equal cost; `reason` says why sides and gap are null where they are."""

    winner: Winner
    reason: str
    budget: Amount
    sparse: Side | None
    dense: Side | None
    gap: Gap | None  # dense minus sparse
    confidence: float
    seeds: int  # of each family
    basis: Basis
    cost_miss: CostMiss | None  # null where none missed by over 3 %

    def sides(self) -> tuple[Side, Side] | None:
        """Sparse and dense; None where no pair was trained to the end."""
        return None if self.sparse is None or self.dense is None else (self.sparse, self.dense)


class Verdicts(Record, frozen=True, kw_only=True):
    """The verdict of each currency."""

    flops: Verdict
    seconds: Verdict
    joules: Verdict

    def of(self, currency: str) -> Verdict:
        """One currency's verdict."""
        return {"flops": self.flops, "seconds": self.seconds, "joules": self.joules}[currency]
