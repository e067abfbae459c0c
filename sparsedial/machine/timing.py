"""One protocol for timing: warm up, repeat all calls in turn, report median, 10th and 90th percentile and count."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one call."""

    median_seconds: float
    low_seconds: float  # 10th percentile
    high_seconds: float  # 90th percentile
    mean_seconds: float  # of all calls, so the total over their number
    count: int

    def record(self) -> dict[str, float]:
        """The timing as JSON."""
        return asdict(self)


def summarise(seconds: list[float]) -> Timing:
    """The timing of some calls."""
    low, median, high = np.percentile(seconds, [10, 50, 90])
    return Timing(
        median_seconds=float(median),
        low_seconds=float(low),
        high_seconds=float(high),
        mean_seconds=sum(seconds) / len(seconds),
        count=len(seconds),
    )


def measure_in_turn(
    calls: Mapping[Name, Callable[[], None]],
    *,
    rounds: int,
    round_seconds: float,
    warmup: int = 2,
    turn: Callable[[], AbstractContextManager[object]] = nullcontext,
    report: Callable[[int, int], None] = lambda done, of: None,
) -> dict[Name, Timing]:
    """Time every call in each round, one after the other, so that other work on the machine affects all alike.

    Each call must wait for its own work (synchronise a device) before it returns. In a round a call repeats for about
    `round_seconds`, at least once. One that takes that long needs no warming up again: what the others left in caches
    is gone after a small part of it. `turn` is entered around the timed calls of each turn, without their warming up.
    Between the calls `report` gets how many turns are done, and of how many.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for index, (name, call) in enumerate(calls.items()):
            report(number * len(calls) + index, rounds * len(calls))
            for _ in range(warmup if number == 0 else _warmups(seconds[name][-1], round_seconds)):
                call()
            with turn():
                end = time.perf_counter() + round_seconds
                while True:
                    began = time.perf_counter()
                    call()
                    now = time.perf_counter()
                    seconds[name].append(now - began)
                    if now >= end:
                        break
    return {name: summarise(values) for name, values in seconds.items()}


def _warmups(last_seconds: float, round_seconds: float) -> int:
    """How often a call is made before it is timed in a round that is not the first."""
    return 0 if last_seconds >= round_seconds else 1
