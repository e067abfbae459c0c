"""The text of new tokens, as they come: decoded together with those before them, so that spaces survive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sparsedial.text.tokenizer import Tokenizer

UNFINISHED = "\ufffd"  # what a decoder writes for the first bytes of a character
MOST_HELD = 32  # tokens that wait for the rest of a character; more are no character


def stream_text(tokenizer: Tokenizer, prompt: Sequence[int], new: Iterable[int]) -> Iterator[str]:
    """The text of each new token, once its characters are whole; some tokens wait for the next.

    A decoder of SentencePiece's kind drops the space before the first word of what it decodes. So new tokens are
    decoded with those that were said last, first with the prompt, and what follows their text is new.
    """
    said, held = list(prompt), list[int]()
    before = tokenizer.decode(said)
    for token in new:
        held.append(token)
        text = tokenizer.decode([*said, *held])
        if len(text) > len(before) and (not text.endswith(UNFINISHED) or len(held) >= MOST_HELD):
            yield text[len(before) :]
            said, held = held, []
            before = tokenizer.decode(said)
    if held and (rest := tokenizer.decode([*said, *held])[len(before) :]):
        yield rest
