"""Runs in one process take turns, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence

from sparsedial.records.run import Run
from sparsedial.training.loop import Step

TURN_SECONDS = 1.0

Steps = Generator[Step, None, Run]


def take_turns(runs: Sequence[Steps], turn_seconds: float = TURN_SECONDS) -> Iterator[tuple[int, Step, float]]:
    """Run all runs to their end. Yields the number of the run, its step, and the seconds that the run has taken.

    A single run needs no turns.
    """
    spent, going = [0.0] * len(runs), list(range(len(runs)))
    while going:
        for number in list(going):
            alone, began = len(going) == 1, time.monotonic()
            before = spent[number]
            while alone or time.monotonic() - began < turn_seconds:
                step = next(runs[number], None)
                spent[number] = before + time.monotonic() - began
                if step is None:
                    going.remove(number)
                    break
                yield number, step, spent[number]
