"""Candidates timed in turns in one run, each in a separate process with its own allocator."""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any, Self

import torch

from sparsedial.machine.hardware import peak_process_bytes, process_bytes
from sparsedial.machine.timing import Timing, measure_in_turn, summarise

Step = Callable[[], object]


class Apart:
    """A training step in another process; a call waits for it, which adds some 0.05 ms."""

    def __init__(self, make: Callable[[], Step], threads: int) -> None:
        here, there = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=_serve, args=(make, threads, there))
        self._process.start()
        self._pipe = here
        there.close()
        self._base_bytes = here.recv()

    def __enter__(self) -> Self:
        return self

    def __call__(self) -> None:
        self.begin()
        self.finish()

    def begin(self) -> None:
        """Begin a step while other processes do theirs."""
        self._pipe.send(True)

    def finish(self) -> None:
        """Wait for the step that was begun."""
        self._pipe.recv()

    def peak_bytes(self) -> float:
        """Peak memory, without the memory that its imports took."""
        self._pipe.send(False)
        return float(self._pipe.recv() - self._base_bytes)

    def __exit__(self, *reason: Any) -> None:
        self._pipe.close()
        self._process.join()


def _serve(make: Callable[[], Step], threads: int, pipe: Connection) -> None:
    torch.set_num_threads(threads)
    if importlib.util.find_spec("transformers") is not None:  # so that all candidates have the same imports
        importlib.import_module("transformers")
    pipe.send(process_bytes())
    step = make()
    try:
        while True:
            if pipe.recv():
                step()
                pipe.send(True)
            else:
                pipe.send(peak_process_bytes())
    except EOFError:
        return


def measure(
    makes: Mapping[str, Callable[[], Step]], *, threads: int, rounds: int, round_seconds: float
) -> tuple[dict[str, Timing], dict[str, float]]:
    """Timings and peak bytes of every candidate."""
    with ExitStack() as stack:
        apart = {name: stack.enter_context(Apart(make, threads)) for name, make in makes.items()}
        timings = measure_in_turn(apart, rounds=rounds, round_seconds=round_seconds)
        return timings, {name: candidate.peak_bytes() for name, candidate in apart.items()}


def timed_in_turns(candidates: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Timing]:
    """Candidates that tell their own seconds, each once a round."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, candidate in candidates.items():
            seconds[name].append(candidate())
    return {name: summarise(values) for name, values in seconds.items()}


def ratio(timings: Mapping[str, Timing], ours: str, peer: str) -> dict[str, float]:
    """How many times as fast as a peer, with the range that the percentiles give."""
    own, theirs = timings[ours], timings[peer]
    return {
        "value": theirs.median_seconds / own.median_seconds,
        "low": theirs.low_seconds / own.high_seconds,
        "high": theirs.high_seconds / own.low_seconds,
    }


def fastest(timings: Mapping[str, Timing], *names: str) -> str:
    """The name with the smallest median."""
    return min(names, key=lambda name: timings[name].median_seconds)


def range_words(value: Mapping[str, float]) -> str:
    """A ratio with its range."""
    return f"{value['value']:.2f} ({value['low']:.2f}–{value['high']:.2f})"
