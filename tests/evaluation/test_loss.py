"""Losses of models whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from sparsedial.evaluation.loss import evaluate_text
from sparsedial.model.transformer import initialise
from sparsedial.shape.ladder import Ladder
from sparsedial.text.prepare import prepare


def uniform(vocab_size: int):
    """A model that gives every token the same probability."""
    model = initialise(Ladder(vocab_size=vocab_size, context=32).shape(12, 0), 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def test_a_uniform_model_over_256_bytes_has_8_bits_per_byte(small_text):
    scored = evaluate_text(uniform(256), small_text, "validation", context=32, max_tokens=128)
    assert scored.bytes == scored.tokens == 128, "no end of a document lies in these windows"
    assert scored.loss == pytest.approx(math.log(256), rel=1e-6)
    assert scored.bits_per_byte == pytest.approx(8.0, rel=1e-6)


def test_bits_per_byte_do_not_depend_on_how_many_bytes_a_token_has(corpus, tmp_path):
    text = prepare([str(corpus)], tokenizer="bpe:300", folder=tmp_path)
    scored = evaluate_text(uniform(300), text, "validation", context=32)
    assert scored.tokens < scored.bytes
    assert scored.loss == pytest.approx(math.log(300), rel=1e-6)
    assert scored.bits_per_byte == pytest.approx(math.log2(300) * scored.tokens / scored.bytes, rel=1e-6)
