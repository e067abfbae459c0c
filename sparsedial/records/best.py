"""The answer of a study to its question: the best model, and how well its sparsity is known."""

from __future__ import annotations

from typing import ClassVar, Literal

from sparsedial.records.quantities import Interval, Span, Sparsity
from sparsedial.records.recipe import OptimizerName
from sparsedial.records.record import Record
from sparsedial.shape.shape import Shape


class BestModel(Record, frozen=True, kw_only=True):
    """The best model that was trained at the largest budget."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = ("optimizer",)

    shape: Shape
    sparsity: Sparsity
    tokens: int
    total_parameters: int
    active_parameters: int
    optimizer: OptimizerName = "adamw"
    budget_flops: float
    loss: Interval  # nats per token
    split: Literal["test", "validation"]  # the text of that loss: test for a model of a verdict, with new seeds
    sparsest_tried: bool  # then a sparser model may be better still
    open_size: Literal["smaller", "larger"] | None  # where no size was tried beside it; null where both were
    sparsity_interval: Span | None  # of the best sparsity, by the law's samples
    sparsity_interval_confidence: float | None
    sparsity_interval_reason: str | None
