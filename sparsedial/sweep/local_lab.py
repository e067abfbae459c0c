"""The lab on this machine: its profile and layout, new or from an earlier start, and the workers for the runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

from sparsedial.kernels import native
from sparsedial.machine.hardware import BusyWatch
from sparsedial.machine.profile import VALUE_BYTES, Profile, read_profile
from sparsedial.records.profile import PROFILE_FILE
from sparsedial.records.record import write
from sparsedial.records.study import Frozen, Inputs
from sparsedial.records.token_selection import StudyTokens
from sparsedial.runs.ahead import compile_ahead
from sparsedial.runs.card_memory import card_memory, explained
from sparsedial.runs.choosing import executor_for
from sparsedial.runs.clock import Clock
from sparsedial.runs.devices import training_dtype
from sparsedial.runs.machines.machines import Machines
from sparsedial.runs.measuring import measure_on
from sparsedial.runs.policy import Listener
from sparsedial.runs.run_store import RunStore
from sparsedial.runs.timed import study_recipe
from sparsedial.shape.shape import Shape
from sparsedial.sweep.at_once import AtOnce, Room
from sparsedial.sweep.budgets import fastest
from sparsedial.sweep.crossing import Crossing
from sparsedial.sweep.design import design, evaluation_tokens, left_out
from sparsedial.sweep.lab import Lab, nobody
from sparsedial.sweep.layout import Layout, nearby_shapes
from sparsedial.sweep.notebook import Notebook
from sparsedial.sweep.question import Question, require_same
from sparsedial.text.prepare import Text
from sparsedial.units import count_words, human_count

NOTED_SHARE = 0.15  # of the cores that other programs keep busy
THREADS = 1  # per run: two workers of one thread are faster than one worker of two


class Witness(Listener, Protocol):
    """Receives the events of runs and of the measuring before them, and notes for the user."""

    def note(self, text: str) -> None:
        """A line for the user."""
        ...

    def measuring(self, done: int, of: int) -> None:
        """`done` of `of` turns that time the machine are done."""
        ...


def local_lab(
    question: Question,
    text: Text,
    notebook: Notebook,
    clock: Clock,
    witness: Witness,
    *,
    binds: bool,
    tokens: StudyTokens | None = None,
    shares: Crossing | None = None,
    machines: Machines | None = None,
) -> Lab:
    """Measure this machine and lay the grid, or take both from an earlier start.

    Runs select their tokens by `tokens`; `shares` says what is trained on shares of the text; `machines` train the
    runs, this one alone where there are none. `binds` writes profile
    and layout to the study's folder, which then belongs to this study. A dry run does not bind the folder.

    Raises: UserError where no grid fits the question, or the folder is bound to another study.
    """
    inputs, device = question.bound_to(text.digest), question.inputs.device
    frozen, file, room = notebook.frozen, question.out / PROFILE_FILE, _room(device)
    if frozen is None:
        numbers = question.at_once if question.on_gpu else ()
        measure = measure_on(
            device, THREADS, witness.measuring, None, question.inputs.token_share, numbers, question.optimizers[0]
        )

        def announced(shapes: list[Shape], batch: int, context: int, seconds: float) -> Profile:
            witness.note("measuring this machine")
            watch = BusyWatch()
            profile = measure(shapes, batch, context, seconds)
            _say_who_else(watch.others(), witness.note)
            return profile

        waiting = shares.select_seconds if shares else 0.0
        layout, profile = design(
            question,
            text.tokenizer.vocab_size,
            announced,
            lambda: clock.elapsed + waiting,
            shares,
            room,
            partial(_compile, inputs) if question.on_gpu else None,
            machines.elsewhere if machines else nobody,
        )
        frozen = Frozen(
            inputs=inputs,
            layout=layout,
            profile_digest=profile.digest,
            evaluation_tokens=evaluation_tokens(layout),
            set_up_seconds=clock.elapsed,
        )
        if binds:
            write(file, profile)
            notebook.freeze(frozen)
    else:
        require_same(question.out, frozen.inputs, inputs)
        layout, profile = Layout.of(frozen.layout), read_profile(file)
        if room is not None:
            room.require(layout)
            _compile(inputs, layout)
    _say_what_slows(layout, text, device, witness.note)
    workers, _ = fastest(layout, profile, AtOnce(numbers=question.at_once, room=room), question.probe_tokens, shares)
    if room is not None:
        _say_what_fits(question, layout, workers, room, witness.note)
    lab = _with_workers(question, workers, text, frozen, layout, profile, clock, witness)
    lab = replace(lab, tokens=tokens, crossing=shares)
    if machines is None:
        return lab
    executor = machines.executor(device, text, RunStore(question.out / "runs"), workers)
    return replace(lab, executor=executor, elsewhere=machines.elsewhere)


def _compile(inputs: Inputs, layout: Layout) -> None:
    """Compile a GPU's kernels for the runs of a grid, and for those to which its open sides may lead."""
    with explained():
        for optimizer in layout.optimizers:
            recipe = study_recipe(layout.batch, layout.ladder.context, inputs.device, optimizer)
            compile_ahead(nearby_shapes(layout), recipe, inputs.device, inputs.token_share)


def _say_who_else(others: float | None, note: Callable[[str], None]) -> None:
    """Whether other programs took a part of the processors while their speed was measured."""
    cores = os.cpu_count() or 1
    if others is not None and others > NOTED_SHARE * cores:
        note(
            f"other programs kept {others:.1f} of {count_words(cores, 'core')} busy: this is planned for what was left"
        )


def _room(device: str) -> Room | None:
    """The memory of the GPU; None on a CPU."""
    if device == "cpu":
        return None
    return Room(card=card_memory(), value_bytes=VALUE_BYTES[training_dtype(device)])


def _say_what_fits(question: Question, layout: Layout, workers: int, room: Room, note: Callable[[str], None]) -> None:
    """How many runs the GPU gets at once, and what its memory left out."""
    if left_out(question, layout) and layout.max_total_parameters is not None:
        note(f"models of more than {human_count(layout.max_total_parameters)} parameters do not fit: {room.card.words}")
    most, asked = room.runs_of(layout), question.at_once[-1]
    short = f", since no more fit: {room.card.words}" if most < asked else ""
    note(f"{count_words(workers, 'run')} at once{short}")


def _say_what_slows(layout: Layout, text: Text, device: str, note: Callable[[str], None]) -> None:
    if device == "cpu" and native.module is None:
        note("no compiled kernels (there was no C compiler at installation): training steps are slower")
    repeats = max(layout.tokens(cell) for cell in layout.cells) / text.train_tokens
    if repeats > 1:
        note(f"the longest run reads the training text {repeats:.1f} times")


def _with_workers(
    question: Question,
    workers: int,
    text: Text,
    frozen: Frozen,
    layout: Layout,
    profile: Profile,
    clock: Clock,
    witness: Witness,
) -> Lab:
    device, store = question.inputs.device, RunStore(question.out / "runs")
    return Lab(
        layout=layout,
        profile=profile,
        text=text.summary(),
        archive=store,
        executor=executor_for(device, text, store, workers),
        listener=witness,
        clock=clock,
        workers=workers,
        threads=THREADS,
        kernels=native.kind(device),
        device=device,
        dtype=training_dtype(device),
        evaluation_tokens=frozen.evaluation_tokens,
        seed=question.inputs.seed,
        probe_tokens=question.probe_tokens,
    )
