"""The answers to one request, from the engine's thread to the loop of the server that sends them.

No thread waits for an answer: the engine puts what it has to say into a queue of the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from sparsedial.serving.answer_text import AnswerText, Before, Ended, Event, PromptScores, Token
from sparsedial.serving.asks import Ask, Load, Reason, Scored, Spent, Told
from sparsedial.serving.entries import Entry
from sparsedial.serving.refused import FAILED, Refused
from sparsedial.text.token_bytes import TokenBytes
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
class Piece:
    """What one of the answers says next."""

    index: int
    text: str
    entries: tuple[Entry, ...] | None  # of the tokens whose text begins in it; None: they are not asked for
    reason: Reason | None  # why it ended; None while it goes on


def joined(pieces: Sequence[Piece]) -> Piece:
    """All pieces of one answer as one."""
    last, entries = pieces[-1], [entry for piece in pieces for entry in piece.entries or ()]
    return Piece(
        index=last.index,
        text="".join(piece.text for piece in pieces),
        entries=None if last.entries is None else tuple(entries),
        reason=last.reason,
    )


class _Hearing:
    """Who hears of one of the answers."""

    def __init__(self, queue: asyncio.Queue[tuple[int, Event]], index: int) -> None:
        self._loop, self._queue, self._index = asyncio.get_running_loop(), queue, index

    def prompt(self, scores: Sequence[Scored]) -> None:
        self._put(PromptScores(scores))

    def token(self, token: int, scored: Scored | None = None) -> None:
        self._put(Token(token, scored))

    def ended(self, reason: Reason, spent: Spent, problem: str | None = None, end_token: Scored | None = None) -> None:
        self._put(Ended(reason=reason, spent=spent, problem=problem, end_token=end_token))

    def _put(self, event: Event) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed, so nobody hears of it
            self._loop.call_soon_threadsafe(self._queue.put_nowait, (self._index, event))


@dataclass(frozen=True)
class _Answer:
    """One of the answers, by its number in the engine; its entries are sent where they are asked for."""

    number: int
    text: AnswerText
    scored: bool


class Answers:
    """All answers to a request, which the engine writes at once.

    Raises: UserError where the engine does not take one of them; none is written then.
    """

    def __init__(
        self,
        engine: Writer,
        asks: Sequence[Ask],
        befores: Sequence[Before],
        tokenizer: Tokenizer,
        words: TokenBytes,
        stops: Sequence[str],
    ) -> None:
        self._engine, self._queue = engine, asyncio.Queue[tuple[int, Event]]()
        self._answers = list[_Answer]()
        try:
            for index, (ask, before) in enumerate(zip(asks, befores, strict=True)):
                number = engine.ask(ask, _Hearing(self._queue, index))  # first: a tokenizer reads no ids but its own
                scored = ask.top is not None
                text = AnswerText(tokenizer, ask.prompt, before, stops, words if scored else None)
                self._answers.append(_Answer(number, text, scored))
        except Exception:  # whatever it is, no answer is written that nobody hears
            self.forget()
            raise

    async def pieces(self) -> AsyncIterator[Piece]:
        """What the answers say, as it comes, until all have ended.

        Raises: Refused where the engine fails.
        """
        while any(answer.text.ended is None for answer in self._answers):
            index, event = await self._queue.get()
            answer, own = self._answers[index], self._answers[index].text
            found = own.stops.found
            text, entries = own.hear(event)
            if own.stops.found and not found and own.ended is None:
                self._engine.finish(answer.number)
            if own.ended and own.ended.reason == "failed":
                raise Refused(500, own.ended.problem or "the engine failed", code=FAILED)
            if text or entries or own.ended:
                kept = tuple(entries) if answer.scored else None
                yield Piece(index=index, text=text, entries=kept, reason=own.reason)

    def forget(self) -> None:
        """Free the slots of answers that have not ended: whoever asked has gone."""
        for answer in self._answers:
            if answer.text.ended is None:
                self._engine.forget(answer.number)

    @property
    def tokens(self) -> int:
        """Tokens that were written."""
        return sum(answer.text.tokens for answer in self._answers)

    @property
    def spent(self) -> tuple[Spent, ...]:
        """What each of the answers took, once all have ended."""
        return tuple(answer.text.ended.spent for answer in self._answers if answer.text.ended)
