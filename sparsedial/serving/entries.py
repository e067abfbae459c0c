"""Log-probabilities beside the text of an answer: each token's, and where in the text it begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sparsedial.serving.asks import Scored
from sparsedial.text.token_bytes import TokenBytes


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A token of a text, and how likely it was."""

    data: bytes
    logprob: float | None  # None: the first token of a prompt, which follows nothing
    top: tuple[tuple[bytes, float], ...]  # the likeliest ones at its place, the likeliest first
    offset: int  # characters before it, from the beginning of the prompt
    ends: bool = False  # it ended the text, and is no part of it


def entry_of(scored: Scored, words: TokenBytes, offset: int, ends: bool = False) -> Entry:
    """A token of an answer."""
    top = tuple((words[token], logprob) for token, logprob in scored.top)
    return Entry(data=words[scored.token], logprob=scored.logprob, top=top, offset=offset, ends=ends)


def prompt_entries(text: str, ids: Sequence[int], scores: Sequence[Scored], words: TokenBytes) -> list[Entry]:
    """The tokens of a prompt: its first one, and those that are scored after it."""
    first, *places = places_of(text, ids, words)
    beginning = Entry(data=words[ids[0]], logprob=None, top=(), offset=first)
    return [beginning, *(entry_of(scored, words, at) for scored, at in zip(scores, places, strict=False))]


def places_of(text: str, ids: Sequence[int], words: TokenBytes) -> Iterator[int]:
    """The character of a text in which each of its tokens begins.

    A special token that the text does not spell has no width, and the first word may lack its space. Where a tokenizer
    changes a text (Unicode normalisation), the places are near.
    """
    data = text.encode()
    at = character = 0  # the byte that comes next, and how many characters begin before it
    for token in ids:
        inside = at < len(data) and _continues(data[at])
        yield character - inside
        width = _width(data, at, words, token)
        character += sum(not _continues(byte) for byte in data[at : at + width])
        at += width


def _width(data: bytes, at: int, words: TokenBytes, token: int) -> int:
    """How many bytes of a text from here on a token stands for."""
    own = words[token]
    if data.startswith(own, at):
        return len(own)
    if not at and data.startswith(own.removeprefix(b" ")):
        return len(own) - 1
    return 0 if words.is_special(token) else min(len(own), len(data) - at)


def _continues(byte: int) -> bool:
    """Whether a byte of UTF-8 is not the first one of its character."""
    return byte & 0xC0 == 0x80
