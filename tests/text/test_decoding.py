"""Streamed text is the text of the whole, spaces included, and no piece holds half a character."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparsedial.text.decoding import UNFINISHED, stream_text
from sparsedial.text.tokenizer import Tokenizer, byte_tokenizer, train_bpe

from .every_kind import EVERY_KIND, TEXT, texts_of, tokenizer_of


@pytest.fixture(params=EVERY_KIND)
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    return tokenizer_of(request.param, tmp_path)


def test_new_text_follows_any_beginning_of_it_with_its_spaces(tokenizer: Tokenizer) -> None:
    for text in texts_of(tokenizer):
        ids = tokenizer.encode(text.encode()).tolist()
        whole = tokenizer.decode(ids)
        assert whole == text
        for end in range(1, len(ids)):
            beginning = tokenizer.decode(ids[:end])
            if beginning.endswith(UNFINISHED):
                continue  # no prompt ends inside a character
            pieces = list(stream_text(tokenizer, ids[:end], ids[end:]))
            assert beginning + "".join(pieces) == whole
            assert not any(UNFINISHED in piece or not piece for piece in pieces)


def test_text_comes_with_its_token_where_no_character_is_cut(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT.encode()).tolist()
    read = []
    pieces = stream_text(tokenizer, ids[:3], (read.append(token) or token for token in ids[3:]))
    for number, _ in enumerate(pieces, start=1):
        assert len(read) == number
    assert len(read) == len(ids) - 3


def test_what_an_untrained_model_draws_is_streamed_as_the_whole_too() -> None:
    drawn = np.random.default_rng(0)
    for tokenizer in (byte_tokenizer(), train_bpe([TEXT.encode() * 5], 300)):
        for _ in range(20):
            new = drawn.integers(1, tokenizer.vocab_size, 60).tolist()
            prompt = tokenizer.encode(b"the cat").tolist()
            text = "".join(stream_text(tokenizer, prompt, new))
            assert "the cat" + text == tokenizer.decode([*prompt, *new])


def test_bytes_that_are_no_character_are_not_held_for_ever() -> None:
    came = []
    for _ in stream_text(byte_tokenizer(), [97], (came.append(1) or 0xFF for _ in range(1000))):
        break
    assert len(came) < 50


def test_a_character_cut_short_by_the_end_is_said_as_such() -> None:
    assert list(stream_text(byte_tokenizer(), [97], [98, 0xC3])) == ["b", UNFINISHED]
