"""Log-probabilities in OpenAI's two forms: that of chats, and the older one of texts.

Source: OpenAI's API reference, "Chat" and "Completions"; how a part of a character is written: OpenAI's answers
"""

from __future__ import annotations

from collections.abc import Sequence

from sparsedial.records.serving import ChatLogprobs, LikelyToken, ScoredToken, TextLogprobs
from sparsedial.serving.entries import Entry


def chat_logprobs(entries: Sequence[Entry] | None) -> ChatLogprobs | None:
    """Those of a message; the token that ended it is none of it."""
    if entries is None:
        return None
    content = (
        ScoredToken(
            token=_written(entry.data),
            logprob=entry.logprob,
            bytes=tuple(entry.data),
            top_logprobs=tuple(
                LikelyToken(token=_written(data), logprob=logprob, bytes=tuple(data)) for data, logprob in entry.top
            ),
        )
        for entry in entries
        if entry.logprob is not None and not entry.ends
    )
    return ChatLogprobs(content=tuple(content))


def text_logprobs(entries: Sequence[Entry] | None) -> TextLogprobs | None:
    """Those of a text. The token that ended it is the last one, as programs that score texts take it to be there."""
    if entries is None:
        return None
    return TextLogprobs(
        tokens=tuple(_written(entry.data, "bytes:") for entry in entries),
        token_logprobs=tuple(entry.logprob for entry in entries),
        top_logprobs=tuple(_top(entry) for entry in entries),
        text_offset=tuple(entry.offset for entry in entries),
    )


def _top(entry: Entry) -> dict[str, float] | None:
    """The likeliest tokens, and the token itself; of several that are written alike the likeliest one."""
    if entry.logprob is None:
        return None
    found: dict[str, float] = {}
    for data, logprob in (*entry.top, (entry.data, entry.logprob)):
        found.setdefault(_written(data, "bytes:"), logprob)
    return found


def _written(data: bytes, mark: str = "") -> str:
    """A token's text; where it is a part of a character, its bytes."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return mark + "".join(f"\\x{byte:02x}" for byte in data)
