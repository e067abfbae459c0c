"""Sections of `benchmarks.gpu` that compare ways to do the same: several small runs at once, and a compiled step.

Small runs at once: on streams of one process, in processes, or as one stacked model. Stacking is not built. What it
could gain at most is the step of one model with as many times the experts, at as many times the batch: it has the
stacked models' arithmetic, and one model's launches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import torch

from benchmarks.gpu_sections import (
    BATCHES,
    CHUNK,
    LADDER,
    STEP_CONTEXT,
    TOGETHER,
    WIDTHS,
    Figures,
    Place,
    small_recipe,
    step_shapes,
    take_all,
)
from benchmarks.side_by_side import Apart, Step
from sparsedial.machine.timing import measure_in_turn
from sparsedial.records.recipe import Recipe
from sparsedial.runs.timed import HARMLESS_RATE, replayed_by
from sparsedial.shape.shape import Shape
from sparsedial.training.optimizer import make_optimizers
from sparsedial.training.replayed import Replayed
from sparsedial.training.step import Rates, TrainingStep

EXPERTS = 32
PROCESSES = 8  # at most: each takes seconds to begin


def at_once(place: Place) -> Figures:
    """Small runs at once, three ways in turn: their steps over those of one alone in the same time."""
    numbers = (2,) if place.quick else TOGETHER
    runs = [made for _ in range(max(numbers)) if (made := _small(place.device, place.quick)) is not None]
    stacked = {number: _small(place.device, place.quick, number) for number in numbers}
    calls: dict[str, Callable[[], object]] = {"one": partial(take_all, runs[:1])}
    for number, made in stacked.items():
        calls[f"streams_{number}"] = partial(take_all, runs[:number])
        if made is not None:
            calls[f"stacked_{number}_at_most"] = partial(take_all, [made])
    take_all(runs)  # all are captured before one is timed
    seconds = place.seconds(calls, 0.3)
    alone = seconds.pop("one")
    yield "one_ms", 1e3 * alone / CHUNK
    for name, found in seconds.items():
        yield f"{name}_times_one", int(name.split("_")[1]) * alone / found
    del runs, stacked, calls
    yield from _processes(place, [number for number in numbers if number <= PROCESSES])


def _small(device: str, quick: bool, number: int = 1) -> Replayed | None:
    """A small model's steps, or those of so many stacked."""
    shape, place = LADDER.shape(16 if quick else WIDTHS[0], number * EXPERTS), Place(device, quick)
    recipe = small_recipe(place, number)
    place.ready([shape], recipe)
    return replayed_by(shape, recipe, device)


def _processes(place: Place, numbers: Sequence[int]) -> Figures:
    make = partial(_chunk, place.device, place.quick)
    with ExitStack() as stack, ThreadPoolExecutor(max(numbers)) as pool:
        begun = pool.map(lambda _: Apart(make, 1), range(max(numbers)))  # together, since each takes seconds
        apart = [stack.enter_context(one) for one in begun]
        _together(apart)  # warms up
        calls = {number: partial(_together, apart[:number]) for number in (1, *numbers)}
        rounds, each = (1, 0.01) if place.quick else (5, 0.3)
        timings = measure_in_turn(calls, rounds=rounds, round_seconds=each)
    alone = timings[1].median_seconds
    for number in numbers:
        yield f"processes_{number}_times_one", number * alone / timings[number].median_seconds


def _chunk(device: str, quick: bool) -> Step:
    """A chunk of a small run's steps, in a process of its own."""
    made = _small(device, quick)
    assert made is not None
    return partial(take_all, [made])


def _together(apart: Sequence[Apart]) -> None:
    for one in apart:
        one.begin()
    for one in apart:
        one.finish()


def compiled(place: Place) -> Figures:
    """The large steps with our kernels and compiled by PyTorch, whose compiler sees only the experts as ours."""
    tokens, seconds = "8k", dict[str, dict[str, float]]()
    for name, shape in step_shapes(place).items():
        ways = dict(_ways(place, shape, 2 if place.quick else BATCHES[tokens]))
        began = time.perf_counter()
        ways["compiled"]()
        place.wait()
        yield f"{name}_compile_seconds", time.perf_counter() - began
        seconds[name] = found = place.seconds(ways, 1.0)
        for way, spent in found.items():
            yield f"{name}_{tokens}_{way}_ms", 1e3 * spent
        yield f"{name}_{tokens}_compiled_over_ours", found["compiled"] / found["ours"]
        del ways
    yield f"tax_{tokens}_faster_of_both", min(seconds["sparse"].values()) / min(seconds["dense"].values())


def _ways(place: Place, shape: Shape, batch: int) -> Iterator[tuple[str, Callable[[], object]]]:
    context = 32 if place.quick else STEP_CONTEXT
    recipe = Recipe(learning_rate=HARMLESS_RATE, steps=1000, batch=batch, context=context, dtype="bfloat16")
    rates = Rates(HARMLESS_RATE, recipe.balance_rate, 0.0)
    ids_BS1 = torch.randint(shape.vocab_size, (batch, context + 1), device=place.device)
    for way in ("ours", "compiled"):
        model = place.model(shape)
        training = TrainingStep(model, make_optimizers(model, recipe), recipe)
        if way == "compiled":
            working = training._working.model
            working.loss = torch.compile(working.loss, backend="eager" if place.quick else "inductor")
        yield way, partial(training.take, ids_BS1, rates)
