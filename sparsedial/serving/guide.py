"""Answers that keep to a form, such as JSON by a schema: which tokens may come next. V vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sparsedial.errors import UserError
from sparsedial.model.greedy import Vocabulary
from sparsedial.text.token_bytes import TokenBytes
from sparsedial.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

# One line, as `json.dumps` writes it. Free white space lets a small model write line breaks for ever.
STYLE: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Guide:
    """Which tokens may come next in one answer. It moves on with each token that is written."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def another(self) -> Guide:
        """The same for another answer, from where this one is."""
        return Guide(self._matcher.deep_copy())

    def allowed(self, logits_V: Tensor) -> Tensor:
        """A copy of the logits, on a CPU, in which tokens that may not come next have minus infinity.

        Raises: UserError where no token of the vocabulary may come next, or finding out which takes too much.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed_V = np.unpackbits(bits, count=len(logits_V), bitorder="little")
        self._require_sound()
        return logits_V.masked_fill(torch.from_numpy(allowed_V == 0), float("-inf"))

    def wrote(self, token: int) -> None:
        """Move on behind a token."""
        self._matcher.consume_token(token)
        self._require_sound()

    def _require_sound(self) -> None:
        if self._matcher.is_error():
            words = self._matcher.get_error().partition("\n")[0]
            if words.startswith("NoExtension"):
                words = "no token of this checkpoint's vocabulary goes on with it"
            raise UserError(f"the form cannot be kept: {words}")


class Guides:
    """Makes the guides of answers in one checkpoint's tokens, of which `vocabulary.ends` end an answer."""

    def __init__(self, tokenizer: Tokenizer, words: TokenBytes, vocabulary: Vocabulary, vocab_size: int) -> None:
        self._tokenizer, self._words, self._vocab_size = tokenizer, words, vocab_size
        self._ends = sorted(end for end in vocabulary.ends if end < vocab_size)

    def json(self, schema: dict[str, Any]) -> Guide:
        """JSON in one line that a schema allows; safe to call in any thread.

        Raises: UserError for a schema that is wrong, or has what is not supported; ModuleNotFoundError.
        Source: JSON Schema, draft 2020-12, as far as llguidance has it
        """
        from llguidance import LLMatcher

        if not self._ends:
            raise UserError("this checkpoint has no end token, so an answer could not end where its form does")
        matcher = LLMatcher(self._tokens, LLMatcher.grammar_from_json_schema(schema, overrides=STYLE), log_level=0)
        if matcher.is_error():
            raise UserError(f"the schema cannot be kept to: {_in_one_line(matcher.get_error())}")
        return Guide(matcher)

    @cached_property
    def _tokens(self) -> LLTokenizer:
        """The bytes of all tokens, as the library has them; this takes a moment."""
        from llguidance import LLTokenizer, TokenizerWrapper

        wrapped = TokenizerWrapper(_Tokens(self._tokenizer, self._words, self._ends, self._vocab_size))
        return LLTokenizer(wrapped, n_vocab=self._vocab_size, eos_token=self._ends)


class _Tokens:
    """A tokenizer under the names that the library looks for."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, words: TokenBytes, ends: Sequence[int], vocab_size: int) -> None:
        self._tokenizer, self.eos_token_id = tokenizer, ends[0]
        self.tokens = [
            words[token] or (f"<end {token}>".encode() if token in ends else b"") for token in range(vocab_size)
        ]
        self.special_token_ids = [token for token in range(vocab_size) if token in ends or words.is_special(token)]

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenizer.encode(text).tolist()


def _in_one_line(words: str) -> str:
    """An error of several lines, without those that only point at a place of another."""
    return " ".join(line.strip() for line in words.splitlines() if line.strip(" ^"))
