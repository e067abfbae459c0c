"""A domain scores as it would alone, the whole as its tokens, and intervals are over documents."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsedial.evaluation.domains import evaluate_domains
from sparsedial.evaluation.statistics import ratio_interval
from sparsedial.model.transformer import initialise
from sparsedial.shape.ladder import Ladder
from sparsedial.text.domains import prepare_domains
from sparsedial.text.tokenizer import byte_tokenizer, train_bpe
from tests.evaluation.whole import evaluate_all
from tests.model.shapes import shaken

MODEL = shaken(Ladder(vocab_size=300, context=16).shape(12, 8))


@pytest.fixture(params=["bytes", "bpe"])
def domains(request, tmp_path: Path):
    """Two domains, one of one document and one of six."""
    texts = {"plain/1.txt": "to be or not to be, that is the question, été. " * 3}
    texts |= {f"other/{number}.txt": f"{number} experts share what they know. " * number for number in range(1, 7)}
    for name, words in texts.items():
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).write_text(words)
    learnt = train_bpe((words.encode() for words in texts.values()), 300)
    tokenizer = byte_tokenizer() if request.param == "bytes" else learnt
    return prepare_domains([str(tmp_path / "all")], tokenizer=tokenizer, folder=tmp_path / "text")


@pytest.mark.parametrize("stride", [None, 5])
def test_a_domain_scores_as_alone_and_all_of_them_as_their_tokens(domains, stride):
    scored = evaluate_domains(MODEL, domains, context=16, stride=stride)
    assert scored.domains is not None
    for name, text in domains.texts.items():
        alone, found = evaluate_all(MODEL, text, "test", context=16, stride=stride), scored.domains[name]
        assert (found.loss, found.bits_per_byte) == (alone.loss, alone.bits_per_byte)
        assert (found.tokens, found.bytes) == (alone.tokens, alone.bytes)
    every = list(scored.domains.values())
    assert scored.total.tokens == sum(one.tokens for one in every)
    assert scored.total.bytes == sum(one.bytes for one in every)
    nats = sum(one.loss * one.tokens for one in every)
    assert scored.total.loss == pytest.approx(nats / scored.total.tokens, rel=1e-12)
    assert scored.total.bits_per_byte == pytest.approx(nats / math.log(2) / scored.total.bytes, rel=1e-12)


def test_experts_are_counted_over_all_domains(domains):
    scored = evaluate_domains(MODEL, domains, context=16)
    assert scored.expert_load is not None
    assert all(float(layer.load_E.sum()) == 0 for layer in MODEL.sparse_feed_forwards)
    loads = [evaluate_all(MODEL, text, "test", context=16).expert_load for text in domains.texts.values()]
    assert scored.expert_load not in loads


def test_an_interval_is_over_documents_and_over_windows_where_there_are_few(domains, monkeypatch):
    scored = evaluate_domains(MODEL, domains, context=16)
    assert scored.domains is not None
    over = {name: one.interval_over for name, one in scored.domains.items()}
    assert over == {"plain": "windows", "other": "documents"}
    assert scored.total.interval_over == "documents"
    for one in (scored.total, *scored.domains.values()):
        assert one.loss_interval.mean == pytest.approx(one.loss, rel=1e-6)
        assert one.bits_per_byte_interval.mean == pytest.approx(one.bits_per_byte, rel=1e-6)
        assert one.loss_interval.low < one.loss < one.loss_interval.high
    monkeypatch.setattr("sparsedial.evaluation.domains.FEWEST", 7)
    fewer = evaluate_domains(MODEL, domains, context=16)
    assert fewer.domains is not None
    assert fewer.domains["other"].interval_over == "windows"
    assert fewer.total.interval_over == "documents"  # seven
    assert np.array_equal(fewer.units.nats, scored.units.nats)  # those of a comparison stay


def test_a_document_is_drawn_with_its_tokens(tmp_path: Path, monkeypatch):
    """A uniform model loses as much on each token, so only bytes for a token differ between documents."""
    model = initialise(Ladder(vocab_size=256, context=16).shape(12, 0), 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    monkeypatch.setattr("sparsedial.evaluation.domains.FEWEST", 2)
    for number, count in enumerate((1, 9)):
        (tmp_path / f"{number}.txt").write_text("a" * count)
    domains = prepare_domains([str(tmp_path)], tokenizer=byte_tokenizer(), folder=tmp_path / "text")
    scored = evaluate_domains(model, domains, context=16)
    assert scored.domains is None
    found = scored.total.loss_interval
    assert found.low is None or found.low == pytest.approx(found.high, rel=1e-6)
    ends = scored.total.bits_per_byte_interval
    assert (ends.low, ends.high) == (pytest.approx(8 * 10 / 9, rel=1e-6), pytest.approx(8 * 2 / 1, rel=1e-6))
    assert scored.total.bits_per_byte == pytest.approx(8 * 12 / 10, rel=1e-6)


def test_the_interval_of_a_ratio_covers_the_truth_in_19_of_20_cases():
    draw, inside = np.random.default_rng(0), 0
    for _ in range(200):
        wholes = draw.integers(1, 50, 60)
        parts = 2.0 * wholes + draw.normal(0, 1, 60) * np.sqrt(wholes)
        found = ratio_interval(parts, wholes)
        inside += found.low <= 2.0 <= found.high
    assert 0.90 * 200 <= inside <= 0.98 * 200


def test_one_document_in_one_window_has_no_interval():
    found = ratio_interval(np.array([3.0]), np.array([2]))
    assert (found.mean, found.low, found.high) == (1.5, None, None)
