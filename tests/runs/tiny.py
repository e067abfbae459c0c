"""A tiny job on the small text, and its run driven to the end."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from sparsedial.records.recipe import Recipe
from sparsedial.records.run import Run
from sparsedial.runs.job import Job
from sparsedial.shape.ladder import Ladder
from sparsedial.training.loop import Step

LADDER = Ladder(vocab_size=256, context=32)
RECIPE = Recipe(learning_rate=0.01, steps=40, batch=8, context=32)


def job_of(text, experts: int = 8, **changes) -> Job:
    return Job(
        shape=LADDER.shape(12, experts),
        recipe=replace(RECIPE, **changes),
        text_digest=text.digest,
        tokenizer=text.tokenizer.digest,
    )


def finish(steps: Generator[Step | None, None, Run]) -> Run:
    """Drive a run to its end."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value
