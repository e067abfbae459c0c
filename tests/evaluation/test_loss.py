"""Losses of models whose answer is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sparsedial.evaluation.loss import counting_scorer, evaluate_text, worst_load
from sparsedial.evaluation.scorer import Scorer, windows_at_once
from sparsedial.model.checkpoint import save_checkpoint
from sparsedial.model.transformer import Transformer, initialise
from sparsedial.shape.ladder import Ladder
from sparsedial.text.prepare import Text, prepare
from tests.evaluation.whole import evaluate_all
from tests.model.shapes import FAMILIES, shaken
from tests.model.test_families import theirs_from


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


class Adding:
    """One of two ranks: what it would add up with the other, one after the other in this process."""

    count = 2

    def __init__(self, index: int, losses: list[float], loads: list[torch.Tensor]) -> None:
        self.index, self.losses, self.loads = index, losses, loads

    def sums(self, figures: list[float]) -> list[float]:
        self.losses += figures
        return [math.fsum(self.losses)]

    def add_up(self, tensors: list[torch.Tensor]) -> None:
        self.loads += [torch.stack(tensors)]
        for tensor, total in zip(tensors, sum(self.loads), strict=True):
            tensor.copy_(total)


def test_ranks_share_the_windows_and_what_they_add_up_is_the_whole(small_text):
    model = initialise(Ladder(vocab_size=256, context=32).shape(12, 4), 0)
    whole = evaluate_text(model, small_text, "validation", context=32, max_tokens=32 * 7)
    losses, loads = list[float](), list[torch.Tensor]()
    both = [
        evaluate_text(
            model, small_text, "validation", context=32, max_tokens=32 * 7, ranks=Adding(index, losses, loads)
        )
        for index in range(2)
    ]
    assert [int(load.sum()) for load in loads] == [4 * 32 * 2 * 2, 3 * 32 * 2 * 2]  # of 2 layers and top_k 2
    assert both[0].expert_load != whole.expert_load
    assert both[1].expert_load == whole.expert_load
    assert both[1].loss == pytest.approx(whole.loss, rel=1e-6)
    assert (both[0].tokens, both[1].bytes) == (whole.tokens, whole.bytes)


def test_a_rank_without_a_window_of_its_own_adds_nothing(small_text):
    model = initialise(Ladder(vocab_size=256, context=32).shape(12, 4), 0)
    whole = evaluate_text(model, small_text, "validation", context=32, max_tokens=32)
    losses, loads = list[float](), list[torch.Tensor]()
    for index in range(2):
        scored = evaluate_text(
            model, small_text, "validation", context=32, max_tokens=32, ranks=Adding(index, losses, loads)
        )
    assert losses[1] == 0.0
    assert (scored.loss, scored.expert_load) == (whole.loss, whole.expert_load)


def test_bits_per_byte_do_not_depend_on_how_many_bytes_a_token_has(corpus, tmp_path):
    text = prepare([str(corpus)], tokenizer="bpe:300", folder=tmp_path)
    scored = evaluate_text(uniform(300), text, "validation", context=32)
    assert scored.tokens < scored.bytes
    assert scored.loss == pytest.approx(math.log(300), rel=1e-6)
    assert scored.bits_per_byte == pytest.approx(math.log2(300) * scored.tokens / scored.bytes, rel=1e-6)


def test_scoring_keeps_one_tensor_and_no_loss_of_a_router():
    """Small tensors of each call that stay would split the heap between large ones: it grew by 190 MB (LOG.md)."""
    model = initialise(Ladder(vocab_size=256, context=32).shape(12, 4), 0)
    scorer, windows_WS1 = counting_scorer(model), torch.randint(256, (2 * windows_at_once(33) + 1, 33))
    total, nats_WS = scorer.losses(windows_WS1, 32)
    assert total == pytest.approx(float(nats_WS.double().sum()))
    assert nats_WS.untyped_storage().nbytes() == 4 * nats_WS.numel() == 4 * windows_WS1[:, 1:].numel()
    assert scorer.routing.losses == []
    assert worst_load(model) is not None, "they were counted all the same"


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


def first_tokens(text: Text, count: int) -> Text:
    return replace(text, arrays={**text.arrays, "validation": text.tokens("validation")[: count + 1]})


def one_by_one(model: Transformer, ids: list[int], context: int, stride: int) -> float:
    """The mean loss of each token by a call of its own, given what stands before it in the window that scores it."""
    total = 0.0
    for place in range(1, len(ids)):
        begin = max(0, -(-(place - context) // stride)) * stride
        with torch.no_grad():
            logits_V = model(torch.tensor([ids[begin:place]]))[0, -1].double()
        total -= float(logits_V.log_softmax(0)[ids[place]])
    return total / (len(ids) - 1)


@pytest.mark.parametrize("experts", [0, 8])
@pytest.mark.parametrize(("stride", "count"), [(1, 40), (5, 61), (16, 64), (31, 90), (32, 70), (7, 20)])
def test_a_sliding_window_scores_each_token_after_what_its_window_holds(small_text, experts, stride, count):
    model = initialise(Ladder(vocab_size=256, context=32).shape(12, experts), 0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)  # so that what stands before a token matters
    text = first_tokens(small_text, count)
    scored = evaluate_all(model, text, "validation", context=32, stride=stride)
    assert scored.tokens == count
    expected = one_by_one(model, text.tokens("validation").tolist(), 32, stride)
    assert scored.loss == pytest.approx(expected, rel=1e-6)


def test_more_before_a_token_changes_its_loss(small_text):
    model = shaken(Ladder(vocab_size=256, context=32).shape(12, 0))
    text = first_tokens(small_text, 300)
    losses = [evaluate_all(model, text, "validation", context=32, stride=stride).loss for stride in (1, 16, 32)]
    assert len({round(loss, 5) for loss in losses}) == 3


def test_a_stride_of_the_whole_window_is_no_stride(small_text):
    model = initialise(Ladder(vocab_size=256, context=32).shape(12, 4), 0)
    without = evaluate_all(model, small_text, "validation", context=32)
    assert evaluate_all(model, small_text, "validation", context=32, stride=32) == without


@pytest.mark.parametrize("stride", [4, 16])
def test_the_loss_is_that_of_transformers(tmp_path, corpus, stride):
    model = shaken(replace(FAMILIES["llama"], vocab_size=300, context=16))
    save_checkpoint(model, tmp_path / "llama")
    text = first_tokens(prepare([str(corpus)], tokenizer="bpe:300", folder=tmp_path / "text"), 500)
    ids = torch.tensor(text.tokens("validation").astype("int64"))[None]
    theirs, total, end = theirs_from(tmp_path / "llama"), 0.0, 0
    for begin in range(0, 500, stride):  # as the guide of transformers to perplexity does
        window = ids[:, begin : begin + 17]
        labels = window.clone()
        labels[:, : window.shape[1] - (begin + window.shape[1] - 1 - end)] = -100
        new = begin + window.shape[1] - 1 - end
        with torch.no_grad():
            total += float(theirs(window, labels=labels).loss) * new
        end += new
        if end == 500:
            break
    scored = evaluate_all(model, text, "validation", context=16, stride=stride)
    assert (scored.tokens, end) == (500, 500)
    assert scored.loss == pytest.approx(total / 500, abs=1e-4)
