"""The bytes of each token add up to the text, whatever kind of tokenizer cut it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsedial.text.token_bytes import TokenBytes
from sparsedial.text.tokenizer import END, Tokenizer

from .every_kind import EVERY_KIND, texts_of, tokenizer_of


@pytest.fixture(params=EVERY_KIND)
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    return tokenizer_of(request.param, tmp_path)


def test_the_bytes_of_tokens_are_those_of_the_text(tokenizer: Tokenizer):
    words = TokenBytes(tokenizer)
    for text in texts_of(tokenizer):
        joined = b"".join(words[token] for token in tokenizer.encode(text.encode()).tolist())
        assert joined.decode().removeprefix(" ") == text


def test_a_special_token_has_its_name_and_an_id_of_no_token_nothing(tokenizer: Tokenizer):
    words = TokenBytes(tokenizer)
    assert words[tokenizer.end_token].decode() in (END, "</s>")
    assert words[99_999] == b""
    assert words.is_special(tokenizer.end_token)
    assert not words.is_special(tokenizer.encode(b"cat").tolist()[-1])
