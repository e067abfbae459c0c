"""What a request asks of the engine that serves a checkpoint, and what the engine tells of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from sparsedial.errors import UserError
from sparsedial.serving.guide import Guide
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
    tokens: int  # at most so many new ones; 0 reads the prompt alone
    sampling: Sampling
    turned: Turned
    top: int | None = None  # each token is told with its log-probability and those of so many likeliest ones
    scores_prompt: bool = False  # those of the prompt's tokens are told too
    guide: Guide | None = None  # of this answer alone: the form that it keeps to


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A token's log-probability in nats by the model itself: temperature, top-p and the like do not change it."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]  # the likeliest tokens at its place, the likeliest first


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

    def prompt(self, scores: Sequence[Scored]) -> None:
        """The prompt's tokens after its first one, where they are scored; told before anything else."""
        ...

    def token(self, token: int, scored: Scored | None = None) -> None:
        """The next token of the text; end tokens are none of it."""
        ...

    def ended(self, reason: Reason, spent: Spent, problem: str | None = None, end_token: Scored | None = None) -> None:
        """The text is complete; `problem` says in one line what failed. Nothing is told after it.

        The token that ended it is told where tokens are scored.
        """
        ...
