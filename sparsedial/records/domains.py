"""The loss of a model on each domain of a text."""

from __future__ import annotations

from typing import Literal

from sparsedial.records.quantities import Interval
from sparsedial.records.record import Record


class DomainLoss(Record, frozen=True, kw_only=True):
    """The loss on one domain, or on all of them. Intervals are 95 %."""

    loss: float  # nats per token
    bits_per_byte: float
    tokens: int
    bytes: int
    loss_interval: Interval
    bits_per_byte_interval: Interval
    interval_over: Literal["documents", "windows"]  # what is drawn again: windows of fewer than six documents
