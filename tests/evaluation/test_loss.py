"""Losses of models whose answer is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sparsedial.evaluation.loss import evaluate_all, evaluate_text
from sparsedial.evaluation.scorer import Scorer
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


@pytest.mark.parametrize("words", ["a few words", "some more words than fit into one window of 32 tokens, and a rest"])
def test_every_token_of_a_text_is_scored_the_last_ones_after_those_of_their_own_window(tmp_path, words):
    (tmp_path / "short.txt").write_text(words)
    text = prepare([str(tmp_path / "short.txt")], folder=tmp_path / "text", whole=True)
    model = initialise(Ladder(vocab_size=256, context=32).shape(12, 4), 0)
    scored = evaluate_all(model, text, "test", context=32)
    ids = text.tokens("test").tolist()
    windows = [ids[start : start + 33] for start in range(0, len(ids) - 1, 32)]
    pairs = [(window[:1], window[1:]) for window in windows]
    total = -sum(found.log_likelihood for found in Scorer(model).log_likelihoods(pairs))
    assert (scored.tokens, scored.bytes) == (len(words) + 1, len(words))
    assert scored.loss == pytest.approx(total / scored.tokens, rel=1e-6)
    assert scored.bits_per_byte == pytest.approx(total / math.log(2) / len(words), rel=1e-6)


def test_a_text_of_whole_windows_scores_as_before(small_text):
    model = initialise(Ladder(vocab_size=256, context=32).shape(12, 4), 0)
    tokens = small_text.tokens("validation")[: 32 * 8 + 1]
    text = replace(small_text, arrays={**small_text.arrays, "validation": tokens})
    assert evaluate_all(model, text, "validation", context=32).loss == pytest.approx(
        evaluate_text(model, text, "validation", context=32).loss, rel=1e-9
    )
