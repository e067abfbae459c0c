"""The bytes of each token add up to the text, whatever kind of tokenizer cut it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsedial.text.token_bytes import TokenBytes
from sparsedial.text.tokenizer import END, Tokenizer, byte_tokenizer, load_tokenizer, train_bpe

from .sentencepiece import write_tokenizer

TEXT = "the cat sat on  a mat. the cat, the mat?"
HARD = "the été 文字 🙂 cat\n\n sat"


@pytest.fixture(params=["bytes", "bpe", "metaspace", "sequence"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    if request.param == "bytes":
        return byte_tokenizer()
    if request.param == "bpe":
        return train_bpe([TEXT.encode() * 5], 300)
    return load_tokenizer(write_tokenizer(tmp_path, request.param))


def test_the_bytes_of_tokens_are_those_of_the_text(tokenizer: Tokenizer):
    words = TokenBytes(tokenizer)
    for text in (TEXT, HARD) if tokenizer.keeps(HARD.encode(), tokenizer.encode(HARD.encode())) else (TEXT,):
        joined = b"".join(words[token] for token in tokenizer.encode(text.encode()).tolist())
        assert joined.decode().removeprefix(" ") == text


def test_a_special_token_has_its_name_and_an_id_of_no_token_nothing(tokenizer: Tokenizer):
    words = TokenBytes(tokenizer)
    assert words[tokenizer.end_token].decode() in (END, "</s>")
    assert words[99_999] == b""
    assert words.is_special(tokenizer.end_token)
    assert not words.is_special(tokenizer.encode(b"cat").tolist()[-1])
