"""The scorer gives what reading each sequence alone gives, in any order, length and company."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.evaluation.scorer import Continuation, Scorer
from sparsedial.model.greedy import Vocabulary, go_on
from sparsedial.model.transformer import initialise
from sparsedial.shape.ladder import Ladder
from sparsedial.text.tokenizer import byte_tokenizer

CONTEXT = 24
MODEL = initialise(Ladder(vocab_size=256, context=CONTEXT).shape(16, 8), 0).eval()
PAIRS = [
    (b"the sea", b" is blue"),
    (b"t", b"h"),
    (b"a context that is longer than this model reads, ", b"cut on the left"),
    (b"the sea", b" is"),
    (b"x" * 3, b"y" * CONTEXT),
]
TEXT = byte_tokenizer()


def sharpened(weights: float):
    """The model with larger weights, so that its tokens differ."""
    model = initialise(MODEL.shape, 0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(weights)
    return model


def by_hand(model, context: bytes, continuation: bytes) -> Continuation:
    """One forward pass over one pair, and log-softmax."""
    ids = [*context, *continuation][-CONTEXT - 1 :]
    with torch.no_grad():
        logits_SV = model(torch.tensor([ids[:-1]]))[0].double()
    shares_SV, last = logits_SV.log_softmax(1), len(continuation)
    targets = ids[-last:]
    nats = [float(shares_SV[position - last, token]) for position, token in enumerate(targets)]
    best = logits_SV[-last:].argmax(1).tolist()
    return Continuation(sum(nats), last, best == targets)


def test_continuations_are_scored_as_one_by_one():
    model = sharpened(2.0)
    found = Scorer(model).log_likelihoods(PAIRS)
    for pair, scored in zip(PAIRS, found, strict=True):
        expected = by_hand(model, *pair)
        assert scored.log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-5)
        assert (scored.tokens, scored.greedy) == (expected.tokens, expected.greedy)


def test_a_continuation_is_greedy_where_the_model_would_say_it():
    model = sharpened(2.0)
    said = [row[0] for row in go_on(model, [list(b"the sea")], 5)]
    other = [*said[:-1], (said[-1] + 1) % 256]
    pairs = [(list(b"the sea"), said), (list(b"the sea"), other)]
    assert [scored.greedy for scored in Scorer(model).log_likelihoods(pairs)] == [True, False]


def test_log_likelihoods_of_the_next_byte_are_a_distribution():
    found = Scorer(sharpened(2.0)).log_likelihoods([(b"the sea", bytes([byte])) for byte in range(256)])
    assert sum(math.exp(scored.log_likelihood) for scored in found) == pytest.approx(1.0, rel=1e-5)


def test_windows_lose_what_their_continuations_lose():
    model, windows = sharpened(2.0), torch.randint(256, (5, CONTEXT + 1), generator=torch.Generator().manual_seed(0))
    pairs = [(row[:1], row[1:]) for row in windows.tolist()]
    lost = -sum(scored.log_likelihood for scored in Scorer(model).log_likelihoods(pairs))
    assert Scorer(model).loss(windows) == pytest.approx(lost, rel=1e-5)


@pytest.mark.parametrize("pair", [(b"", b"a"), (b"a", b""), (b"a", b"b" * (CONTEXT + 1))])
def test_what_cannot_be_scored_is_refused(pair):
    with pytest.raises(UserError, match=r"has no tokens|does not fit"):
        Scorer(MODEL).log_likelihoods([(b"a", b"b"), pair])


@pytest.mark.parametrize("capped", [0.0, 30.0])
def test_text_ends_before_the_first_stop(capped):
    model = initialise(replace(MODEL.shape, logit_cap=capped), 1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    prompts = [b"the sea is", b"a", b"to be or not to be, that is the", b"zzz"]
    whole = Scorer(model).greedy_until(prompts, TEXT, [], 12)
    ends = Vocabulary(ends=frozenset({TEXT.end_token}))
    for prompt, text in zip(prompts, whole, strict=True):  # together as alone
        alone = TEXT.decode([row[0] for row in go_on(model, [list(prompt)], 12, vocabulary=ends) if row[0] is not None])
        assert text == alone
    stops = [text[3:5] for text in whole if len(text) > 5]
    assert stops, "no text is long enough to have a stop within it"
    cut = Scorer(model).greedy_until(prompts, TEXT, stops, 12)
    for text, short in zip(whole, cut, strict=True):
        ends = [at for stop in stops if (at := text.find(stop)) >= 0]
        assert short == text[: min(ends, default=len(text))]
    assert any(len(short) < len(text) for text, short in zip(whole, cut, strict=True))
