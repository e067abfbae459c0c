"""The answers to one request, from the engine's thread to the loop of the server that sends them.

No thread waits for an answer: the engine puts what it has to say into a queue of the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from sparsedial.serving.asks import Ask, Load, Reason, Spent, Told
from sparsedial.serving.refused import FAILED, Refused
from sparsedial.serving.stopping import Stops
from sparsedial.text.decoding import NewText
from sparsedial.text.tokenizer import Tokenizer


class Writer(Protocol):
    """What writes answers: the engine."""

    def ask(self, ask: Ask, told: Told) -> int:
        """Begin an answer; its number."""
        ...

    def finish(self, number: int) -> None:
        """End an answer as it is: `ended` is told."""
        ...

    def forget(self, number: int) -> None:
        """End an answer whose asker has gone: nothing more is told."""
        ...

    def load(self) -> Load:
        """What it is doing."""
        ...


@dataclass(frozen=True, kw_only=True)
class Ended:
    """That a text is complete."""

    reason: Reason
    spent: Spent
    problem: str | None


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What one of the answers says next."""

    index: int
    text: str
    reason: Reason | None  # why it ended; None while it goes on


class _Hearing:
    """Who hears of one of the answers."""

    def __init__(self, queue: asyncio.Queue[tuple[int, int | Ended]], index: int) -> None:
        self._loop, self._queue, self._index = asyncio.get_running_loop(), queue, index

    def token(self, token: int) -> None:
        self._put(token)

    def ended(self, reason: Reason, spent: Spent, problem: str | None = None) -> None:
        self._put(Ended(reason=reason, spent=spent, problem=problem))

    def _put(self, event: int | Ended) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed, so nobody hears of it
            self._loop.call_soon_threadsafe(self._queue.put_nowait, (self._index, event))


class _Answer:
    """One of the answers: its text up to a stop string, and how it ended."""

    def __init__(self, number: int, text: NewText, stops: Sequence[str]) -> None:
        self.number, self._text, self.stops = number, text, Stops(stops)
        self.tokens = 0
        self.ended: Ended | None = None

    def hear(self, event: int | Ended) -> str:
        """What the answer says with this."""
        if isinstance(event, Ended):
            self.ended = event
            return self.stops.push(self._text.end()) + self.stops.end()
        if self.stops.found:
            return ""  # it was on its way when the string was found
        self.tokens += 1
        return self.stops.push(self._text.push(event))

    @property
    def reason(self) -> Reason | None:
        """Why the answer ended."""
        return "stop" if self.ended and self.stops.found else self.ended and self.ended.reason


class Answers:
    """All answers to a request, which the engine writes at once.

    Raises: UserError where the engine does not take one of them; none is written then.
    """

    def __init__(self, engine: Writer, asks: Sequence[Ask], tokenizer: Tokenizer, stops: Sequence[str]) -> None:
        self._engine, self._queue = engine, asyncio.Queue[tuple[int, int | Ended]]()
        self._answers = list[_Answer]()
        try:
            for index, ask in enumerate(asks):
                number = engine.ask(ask, _Hearing(self._queue, index))  # first: a tokenizer reads no ids but its own
                self._answers.append(_Answer(number, NewText(tokenizer, ask.prompt), stops))
        except Exception:
            self.forget()
            raise

    async def pieces(self) -> AsyncIterator[Piece]:
        """What the answers say, as it comes, until all have ended.

        Raises: Refused where the engine fails.
        """
        while any(answer.ended is None for answer in self._answers):
            index, event = await self._queue.get()
            answer, found = self._answers[index], self._answers[index].stops.found
            text = answer.hear(event)
            if answer.stops.found and not found and answer.ended is None:
                self._engine.finish(answer.number)
            if answer.ended and answer.ended.reason == "failed":
                raise Refused(500, answer.ended.problem or "the engine failed", code=FAILED)
            if text or answer.ended:
                yield Piece(index=index, text=text, reason=answer.reason)

    def forget(self) -> None:
        """Free the slots of answers that have not ended: whoever asked has gone."""
        for answer in self._answers:
            if answer.ended is None:
                self._engine.forget(answer.number)

    @property
    def tokens(self) -> int:
        """Tokens that were written."""
        return sum(answer.tokens for answer in self._answers)

    @property
    def spent(self) -> tuple[Spent, ...]:
        """What each of the answers took, once all have ended."""
        return tuple(answer.ended.spent for answer in self._answers if answer.ended)
