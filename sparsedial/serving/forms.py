"""The two forms in which answers are sent, each whole or in pieces: messages of a chat, and texts after prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sparsedial.records.record import Record
from sparsedial.records.serving import (
    AnswerMessage,
    ChatChoice,
    ChatChunk,
    ChatReply,
    ChunkChoice,
    Delta,
    FinishReason,
    FirstDelta,
    TextChoice,
    TextReply,
    Usage,
)
from sparsedial.serving.answers import Piece
from sparsedial.serving.logprobs import chat_logprobs, text_logprobs


@dataclass(frozen=True, kw_only=True)
class Head:
    """What all records of one answer have."""

    id: str
    created: int
    model: str

    @property
    def fields(self) -> dict[str, Any]:
        """By name, as the records take them."""
        return dict(vars(self))


class Form(Protocol):
    """How answers are sent."""

    prefix: str  # of their names

    def begins(self, head: Head, count: int) -> Iterator[Record]:
        """What is sent before any text of so many answers."""
        ...

    def piece(self, head: Head, piece: Piece) -> Record:
        """A piece of one of them."""
        ...

    def last(self, head: Head, usage: Usage) -> Record:
        """What is sent behind the last piece, where it was asked for."""
        ...

    def whole(self, head: Head, answers: Sequence[Piece], usage: Usage) -> Record:
        """All of them, with why each ended."""
        ...


class ChatForm:
    """Messages of a chat."""

    prefix = "chatcmpl"

    def begins(self, head: Head, count: int) -> Iterator[Record]:
        """The role of each message."""
        for index in range(count):
            choice = ChunkChoice(index=index, delta=FirstDelta(), finish_reason=None)
            yield ChatChunk(**head.fields, choices=(choice,), usage=None)

    def piece(self, head: Head, piece: Piece) -> Record:
        """A piece of a message."""
        choice = ChunkChoice(
            index=piece.index,
            delta=Delta(content=piece.text),
            logprobs=chat_logprobs(piece.entries or None),
            finish_reason=finished(piece),
        )
        return ChatChunk(**head.fields, choices=(choice,), usage=None)

    def last(self, head: Head, usage: Usage) -> Record:
        """What they took."""
        return ChatChunk(**head.fields, choices=(), usage=usage)

    def whole(self, head: Head, answers: Sequence[Piece], usage: Usage) -> Record:
        """Whole messages."""
        choices = (
            ChatChoice(
                index=answer.index,
                message=AnswerMessage(content=answer.text),
                logprobs=chat_logprobs(answer.entries),
                finish_reason=finished(answer) or "length",
            )
            for answer in answers
        )
        return ChatReply(**head.fields, choices=tuple(choices), usage=usage)


class TextForm:
    """Texts after prompts."""

    prefix = "cmpl"

    def begins(self, head: Head, count: int) -> Iterator[Record]:
        """Nothing: a text has no role."""
        return iter(())

    def piece(self, head: Head, piece: Piece) -> Record:
        """A piece of a text."""
        choice = TextChoice(
            index=piece.index,
            text=piece.text,
            logprobs=text_logprobs(piece.entries or None),
            finish_reason=finished(piece),
        )
        return TextReply(**head.fields, choices=(choice,), usage=None)

    def last(self, head: Head, usage: Usage) -> Record:
        """What they took."""
        return TextReply(**head.fields, choices=(), usage=usage)

    def whole(self, head: Head, answers: Sequence[Piece], usage: Usage) -> Record:
        """Whole texts."""
        choices = (
            TextChoice(
                index=answer.index,
                text=answer.text,
                logprobs=text_logprobs(answer.entries),
                finish_reason=finished(answer) or "length",
            )
            for answer in answers
        )
        return TextReply(**head.fields, choices=tuple(choices), usage=usage)


def finished(piece: Piece) -> FinishReason | None:
    """Why a text ended, in OpenAI's words; None while it goes on."""
    return None if piece.reason is None else "stop" if piece.reason == "stop" else "length"
