"""Engines on small models, askers that keep what they are told, and what each request gets alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from sparsedial.machine.energy import StatedPower
from sparsedial.model.gates import Gates
from sparsedial.model.greedy import ALL, Vocabulary
from sparsedial.model.transformer import Transformer
from sparsedial.model.turned import at_setting
from sparsedial.serving.asks import Ask, Reason, Scored, Spent
from sparsedial.serving.engine import Engine
from sparsedial.serving.generation import generate
from sparsedial.serving.sampling import Sampling
from sparsedial.shape.turned import parse_turned

GREEDY = Sampling(temperature=0.0)
PATIENCE = 60.0  # seconds, before a test says that an answer does not end


@dataclass
class Heard:
    """What one asker was told."""

    tokens: list[int] = field(default_factory=list)
    scores: list[Scored] = field(default_factory=list)  # of the tokens
    prompt_scores: list[Scored] = field(default_factory=list)
    end_token: Scored | None = None
    reason: Reason | None = None
    spent: Spent | None = None
    problem: str | None = None
    done: threading.Event = field(default_factory=threading.Event)
    some: threading.Event = field(default_factory=threading.Event)

    def prompt(self, scores: Sequence[Scored]) -> None:
        assert self.prompt_scores == self.tokens == [], "a prompt comes first, and once"
        self.prompt_scores += scores

    def token(self, token: int, scored: Scored | None = None) -> None:
        assert not self.done.is_set(), "nothing is told after the end"
        self.tokens.append(token)
        self.scores += [] if scored is None else [scored]
        self.some.set()

    def ended(self, reason: Reason, spent: Spent, problem: str | None = None, end_token: Scored | None = None) -> None:
        assert not self.done.is_set(), "an answer ends once"
        self.reason, self.spent, self.problem, self.end_token = reason, spent, problem, end_token
        self.done.set()

    def wait(self) -> list[int]:
        assert self.done.wait(PATIENCE), "the answer has not ended"
        return self.tokens


def asked(prompt: list[int], tokens: int, setting: str = "default", sampling: Sampling = GREEDY) -> Ask:
    return Ask(prompt=tuple(prompt), tokens=tokens, sampling=sampling, turned=parse_turned(setting))


def alone(
    model: Transformer,
    ask: Ask,
    length: int,
    vocabulary: Vocabulary = ALL,
    gates: Gates | None = None,
) -> list[int]:
    """The ids that a request gets without an engine, as far as its slot reaches."""
    tokens = min(ask.tokens, length - len(ask.prompt))
    return list(generate(at_setting(model, ask.turned, gates), ask.prompt, tokens, ask.sampling, vocabulary))


@contextmanager
def engine_of(
    model: Transformer,
    slots: int = 4,
    length: int | None = None,
    vocabulary: Vocabulary = ALL,
    power: StatedPower | None = None,
    gates: Gates | None = None,
) -> Iterator[Engine]:
    made = Engine(
        model,
        slots=slots,
        length=length or model.shape.context,
        vocabulary=vocabulary,
        power=power or StatedPower(watts=10.0, source="a test"),
        gates=gates,
    )
    try:
        yield made
    finally:
        made.close()


class _Holding:
    """An asker that holds the engine while it hears its only token."""

    def __init__(self) -> None:
        self.holds, self.released = threading.Event(), threading.Event()

    def prompt(self, scores: Sequence[Scored]) -> None:
        raise AssertionError("its prompt is not scored")

    def token(self, token: int, scored: Scored | None = None) -> None:
        self.holds.set()
        assert self.released.wait(PATIENCE)

    def ended(self, reason: Reason, spent: Spent, problem: str | None = None, end_token: Scored | None = None) -> None:
        pass


@contextmanager
def held(engine: Engine) -> Iterator[None]:
    """The engine stands still, so that all that is asked within it arrives in one turn."""
    holding = _Holding()
    engine.ask(asked([1], 1), holding)
    assert holding.holds.wait(PATIENCE)
    try:
        yield
    finally:
        holding.released.set()
