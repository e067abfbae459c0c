"""The text of new tokens, as they come: decoded together with those before them, so that spaces survive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sparsedial.text.tokenizer import Tokenizer

UNFINISHED = "\ufffd"  # what a decoder writes for the first bytes of a character
MOST_HELD = 32  # tokens that wait for the rest of a character; more are no character


class NewText:
    """The text after a prompt, a token at a time.

    A decoder of SentencePiece's kind drops the space before the first word of what it decodes. So new tokens are
    decoded with those that were said last, first with the prompt, and what follows their text is new.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        self._tokenizer, self._said, self._held = tokenizer, list(prompt), list[int]()
        self._before = tokenizer.decode(self._said)

    def push(self, token: int) -> str:
        """What the token adds once its characters are whole; nothing while it waits for the next."""
        self._held.append(token)
        text, before = self._tokenizer.decode([*self._said, *self._held]), self._before
        if len(text) <= len(before) or (text.endswith(UNFINISHED) and len(self._held) < MOST_HELD):
            return ""
        self._said, self._held = self._held, []
        self._before = self._tokenizer.decode(self._said)
        return text[len(before) :]

    def end(self) -> str:
        """The text of tokens that still wait."""
        if not self._held:
            return ""
        return self._tokenizer.decode([*self._said, *self._held])[len(self._before) :]


def stream_text(tokenizer: Tokenizer, prompt: Sequence[int], new: Iterable[int]) -> Iterator[str]:
    """The text of each new token, once its characters are whole; some tokens wait for the next."""
    text = NewText(tokenizer, prompt)
    for token in new:
        if piece := text.push(token):
            yield piece
    if rest := text.end():
        yield rest
