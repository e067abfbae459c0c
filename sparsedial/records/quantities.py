"""The small values that records share."""

from __future__ import annotations

from typing import Literal

from sparsedial.records.record import Record
from sparsedial.shape.counts import sparsity_of
from sparsedial.shape.shape import Shape

Currency = Literal["flops", "seconds", "joules", "dollars"]
Family = Literal["sparse", "dense"]
Span = tuple[float, float]  # the low and the high end


def family_of(experts: int) -> Family:
    """The family of a model with so many experts."""
    return "sparse" if experts else "dense"


class Sparsity(Record, frozen=True, kw_only=True):
    """The three published measures of sparsity."""

    experts: float  # 1 - top_k/experts over the sparse layers
    parameters: float  # 1 - active/total
    activation_ratio: float  # (top_k + shared)/(experts + shared)

    @staticmethod
    def of(shape: Shape, neurons: float = 1.0) -> Sparsity:
        """The sparsity of a shape, of whose neurons a share takes part in dense layers."""
        return Sparsity(**sparsity_of(shape, neurons))


class Interval(Record, frozen=True, kw_only=True):
    """A mean with the ends of its interval, which are null for a single value."""

    mean: float
    low: float | None
    high: float | None


class Gap(Record, frozen=True, kw_only=True):
    """A difference of means with its interval, nats per token."""

    mean: float
    low: float
    high: float


class Amount(Record, frozen=True, kw_only=True):
    """An amount in a currency; null where a verdict was not reached, which says why."""

    currency: Currency
    value: float | None


class Load(Record, frozen=True, kw_only=True):
    """The balance of the load of a layer's experts."""

    max_over_mean: float  # tokens of the busiest expert, divided by the mean
    dead_experts: int  # experts that no token chose
    entropy: float  # divided by its largest possible value


class Machine(Record, frozen=True, kw_only=True):
    """A description of a machine."""

    processor: str
    cores: int  # that the process may use
    memory_bytes: int
    system: str
    python: str
    gpus: tuple[str, ...]
