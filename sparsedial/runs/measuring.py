"""Measures this machine's profile: training steps of real models, timed on the device that will train them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from msgspec.structs import replace

from sparsedial.kernels.metering import meter
from sparsedial.machine.at_once import Steps, measure_at_once
from sparsedial.machine.hardware import describe
from sparsedial.machine.memory import Memory
from sparsedial.machine.profile import Measure, Profile, measure_profile
from sparsedial.records.recipe import OptimizerName
from sparsedial.runs.ahead import compile_ahead
from sparsedial.runs.card_memory import explained
from sparsedial.runs.devices import training_dtype
from sparsedial.runs.random_text import MIDDLE
from sparsedial.runs.timed import make_steps, several_by, study_recipe
from sparsedial.shape.shape import Shape

AT_ONCE_SHARE = 0.25  # of the time for steps, where several runs at once are timed too


def measure_on(
    device: str,
    threads: int,
    report: Callable[[int, int], None],
    memory: Memory | None = None,
    token_share: float | None = None,
    at_once: Sequence[int] = (),
    optimizer: OptimizerName = "adamw",
) -> Measure:
    """A function that times shapes on this machine for a number of seconds, with nothing else of ours running.

    `report` is called with the number of turns that are done and of all turns. With a token share the steps select
    their tokens. So many runs `at_once`, in this process, are timed at the shortest and the longest step. Before all,
    a GPU's kernels are compiled.
    """

    def measure(shapes: list[Shape], batch: int, context: int, seconds: float) -> Profile:
        with explained():
            compile_ahead(shapes, study_recipe(batch, context, device, optimizer), device, token_share)
            return timed(shapes, batch, context, seconds)

    def timed(shapes: list[Shape], batch: int, context: int, seconds: float) -> Profile:
        several_seconds = AT_ONCE_SHARE * seconds if at_once else 0.0
        profile = measure_profile(
            partial(make_steps, device=device, threads=threads, token_share=token_share, optimizer=optimizer),
            shapes,
            batch=batch,
            context=context,
            budget_seconds=seconds - several_seconds,
            machine=describe(),
            device=device,
            threads=threads,
            dtype=training_dtype(device),
            optimizer=optimizer,
            meter=meter(device, threads),
            memory=memory,
            report=report,
        )
        if not at_once:
            return profile

        def make(shape: Shape, most: int) -> Sequence[Steps]:
            return several_by(shape, batch, context, most, device, threads, token_share, optimizer)

        rows = sorted(profile.rows, key=lambda row: row.median_seconds)
        ends = [rows[0].shape, rows[-1].shape]
        return replace(profile, at_once=measure_at_once(make, ends, at_once, first=MIDDLE, seconds=several_seconds))

    return measure
