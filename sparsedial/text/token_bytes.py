"""The bytes that each token stands for, which may be a part of a character."""

from __future__ import annotations

import json
import re
from typing import Any

from sparsedial.text.tokenizer import END, Tokenizer, letter_bytes

BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # a token of SentencePiece's for a byte that no other token has


class TokenBytes:
    """The bytes of a tokenizer's tokens: those of a text are the text's, but for a space before its first word.

    Those of a special token are its name's. An id that is no token's has none.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._backend = tokenizer, tokenizer.backend
        self._known = dict[int, bytes]()
        self._added: dict[int, Any] = {} if self._backend is None else self._backend.get_added_tokens_decoder()
        decoded = self._backend is not None and tokenizer.token_bytes is None  # else what a token stands for is fixed
        self._single = decoded and "ByteFallback" in json.dumps(_decoder(self._backend))

    def __getitem__(self, token: int) -> bytes:
        if token not in self._known:
            self._known[token] = self._find(token)
        return self._known[token]

    def is_special(self, token: int) -> bool:
        """Whether a token has a name, and stands for no text of its own."""
        return token == self._tokenizer.end_token or token in self._added

    def _find(self, token: int) -> bytes:
        if self._backend is None:
            return END.encode() if token == self._tokenizer.end_token else bytes([token] if token < 256 else [])
        if token in self._added:
            return self._added[token].content.encode()
        piece = self._backend.id_to_token(token)
        if piece is None:
            return b""
        if self._tokenizer.token_bytes is not None:
            return letter_bytes(piece)
        if self._single and (found := BYTE.fullmatch(piece)):
            return bytes([int(found[1], 16)])
        once, twice = (self._backend.decode([token] * count, skip_special_tokens=False) for count in (1, 2))
        return twice[len(once) :].encode()  # behind another one it keeps its space


def _decoder(backend: Any) -> Any:
    return json.loads(backend.to_str())["decoder"]
