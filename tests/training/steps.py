"""Training step by step, without the readings in which a GPU gives them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from sparsedial.training.loop import Step, train_readings


def train_steps(*given: Any, **named: Any) -> Iterator[Step]:
    """The steps of `train_readings`, one by one."""
    return chain.from_iterable(train_readings(*given, **named))
