"""What a request asks of the engine that serves a checkpoint, and what the engine tells of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from sparsedial.errors import UserError
from sparsedial.serving.sampling import Sampling
from sparsedial.shape.turned import Turned

Reason: TypeAlias = Literal["stop", "length", "failed"]  # why a text ended: an end token, its most tokens, an error


class Closed(UserError):
    """The engine writes nothing any more."""

    def __init__(self) -> None:
        super().__init__("the server is closing")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A prompt to be continued, at a setting of the checkpoint's dial."""

    prompt: tuple[int, ...]
    tokens: int  # at most so many new ones
    sampling: Sampling
    turned: Turned


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What one answer took."""

    cached: int  # tokens of the prompt that were not read again, since a slot held them
    waited: float  # seconds until its prompt was begun to be read
    seconds: float  # from when it was asked to its last token, the wait included
    joules: float  # its share of what the machine used


@dataclass(frozen=True, kw_only=True)
class Load:
    """What an engine is doing, and has done since its start."""

    slots: int  # answers at once
    busy: int
    waiting: int
    tokens_read: int  # of prompts that were begun, without those that a slot held
    tokens_cached: int  # of prompts, that a slot held
    tokens_written: int  # end tokens are none of them
    seconds_busy: float  # in which the model computed
    joules: float  # that the machine used in them


class Told(Protocol):
    """Who hears of an answer. The engine calls it in its own thread, so it must return at once."""

    def token(self, token: int) -> None:
        """The next token of the text; end tokens are none of it."""
        ...

    def ended(self, reason: Reason, spent: Spent, problem: str | None = None) -> None:
        """The text is complete; `problem` says in one line what failed. Nothing is told after it."""
        ...
