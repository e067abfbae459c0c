"""Measures this machine's profile: training steps of real models, timed on the device that will train them."""

from __future__ import annotations

from collections.abc import Callable

from sparsedial.machine.energy import meter
from sparsedial.machine.hardware import describe
from sparsedial.machine.memory import Memory
from sparsedial.machine.profile import Measure, Profile, measure_profile
from sparsedial.records.recipe import Dtype
from sparsedial.runs.timed import make_step
from sparsedial.shape.shape import Shape


def training_dtype(device: str) -> Dtype:
    """The default data type of training on a kind of device."""
    return "bfloat16" if device == "cuda" else "float32"


def measure_on(
    device: str,
    threads: int,
    report: Callable[[int, int], None],
    memory: Memory | None = None,
    token_share: float | None = None,
) -> Measure:
    """A function that times shapes on this machine for a number of seconds, with nothing else of ours running.

    `report` is called with the number of turns that are done and of all turns. With a token share the steps select
    their tokens.
    """

    def measure(shapes: list[Shape], batch: int, context: int, seconds: float) -> Profile:
        return measure_profile(
            lambda shape, sequences, length: make_step(shape, sequences, length, device, threads, token_share),
            shapes,
            batch=batch,
            context=context,
            budget_seconds=seconds,
            machine=describe(),
            device=device,
            threads=threads,
            dtype=training_dtype(device),
            meter=meter(device, threads),
            memory=memory,
            report=report,
        )

    return measure
