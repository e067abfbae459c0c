"""What several runs at once gain on one device over one alone: measured at a short and a long step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import numpy as np

from sparsedial.machine.timing import measure_in_turn
from sparsedial.records.profile import AtOnceTiming
from sparsedial.shape.shape import Shape

NUMBERS = (1, 2, 4, 8)  # of runs at once that a GPU's profile measures
CHUNK_SECONDS, FEWEST, MOST = 0.03, 2, 40  # of one run's steps between two readings, and their number
FIRST = 5  # steps before anything is timed: on a GPU two compile kernels, and one of each kind is captured
ROUNDS = 3


class Steps(Protocol):
    """Steps of a run that are given to a device, which works on several runs at once, and read later."""

    def take(self, indices: range) -> None:
        """Give the device these steps."""
        ...

    def read(self) -> object:
        """Wait for them."""
        ...


def measure_at_once(
    make: Callable[[Shape, int], Sequence[Steps]],
    shapes: Sequence[Shape],
    numbers: Sequence[int],
    *,
    first: int,
    seconds: float,
) -> tuple[AtOnceTiming, ...]:
    """Time the start of a run, and then the steps of one and of several at once, in turn, for each shape.

    `make` gives the runs of a shape: as many as asked, or fewer where they have no room, none where its steps are not
    given ahead. Steps from `first` on are alike.
    """
    rows: list[AtOnceTiming] = []
    for shape in dict.fromkeys(shapes):
        began = time.perf_counter()
        runs = make(shape, max(numbers))
        _take(runs, range(first, first + FIRST))
        start_seconds = (time.perf_counter() - began) / max(1, len(runs))
        fitting = [number for number in sorted(set(numbers)) if number <= len(runs)]
        if fitting:
            rows += _timed(shape, runs, fitting, first, seconds / len(shapes), start_seconds)
    return tuple(rows)


def _timed(
    shape: Shape, runs: Sequence[Steps], numbers: Sequence[int], first: int, seconds: float, start_seconds: float
) -> list[AtOnceTiming]:
    began = time.perf_counter()
    _take(runs[:1], range(first, first + FIRST))
    step_seconds = (time.perf_counter() - began) / FIRST
    chunk = min(MOST, max(FEWEST, int(CHUNK_SECONDS / step_seconds)))
    indices = range(first, first + chunk)
    calls = {number: partial(_take, runs[:number], indices) for number in dict.fromkeys((1, *numbers))}
    timings = measure_in_turn(calls, rounds=ROUNDS, round_seconds=seconds / (ROUNDS * len(calls)), warmup=1)
    alone = timings[1].median_seconds
    return [
        AtOnceTiming(
            d_model=shape.d_model,
            experts=shape.experts,
            step_seconds=alone / chunk,
            start_seconds=start_seconds,
            runs=number,
            times_one=number * alone / timings[number].median_seconds,
        )
        for number in numbers
    ]


def _take(runs: Sequence[Steps], indices: range) -> None:
    """Take these steps of all runs: the device gets all of them before the first is waited for."""
    for run in runs:
        run.take(indices)
    for run in runs:
        run.read()


def times_one(rows: Sequence[AtOnceTiming], runs: int, step_seconds: float) -> float:
    """The steps of so many runs at once over those of one alone, where one alone takes these seconds a step.

    Between the measured numbers and the logarithms of the measured steps it is linear, beyond them constant. Without
    measurements several gain nothing.
    """
    steps = sorted({row.step_seconds for row in rows})
    gains = [_gain([row for row in rows if row.step_seconds == step], runs) for step in steps]
    return float(np.interp(math.log(step_seconds), np.log(steps), gains)) if steps else 1.0


def _gain(rows: Sequence[AtOnceTiming], runs: int) -> float:
    known = sorted((row.runs, row.times_one) for row in rows if row.runs > 1)
    return float(np.interp(runs, [1, *(number for number, _ in known)], [1.0, *(gain for _, gain in known)]))
