"""Checkpoints whose right answer is known: dead experts go first by every score, a domain keeps its own experts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sparsedial.model.checkpoint import model_of
from sparsedial.model.weights import stream_of
from sparsedial.pruning.counts import keep_best, uniform_counts
from sparsedial.pruning.experts import KeptExperts, without_experts
from sparsedial.pruning.gather import gather
from sparsedial.pruning.quality import nats_of, no_better, parted
from sparsedial.pruning.scores import SCORES
from sparsedial.pruning.windows import Windows, read_windows
from sparsedial.records.quantities import Interval
from sparsedial.shape.shape import Shape
from sparsedial.text.tokenizer import byte_tokenizer
from tests.pruning.planted import FIRST, LETTERS, ROUTERS, SECOND, planted, text_of, with_dead_experts, with_domains

DEAD = (1, 3, 4, 6)  # two in each of two groups


def windows_of(file: Path, tokens: int = 2048) -> Windows:
    return read_windows([str(file)], byte_tokenizer(), vocab_size=256, context=32, tokens=tokens, field="calibrate")


def best_half(scores, shape: Shape) -> KeptExperts:
    return keep_best(scores, uniform_counts(scores, shape, 0.5), shape.expert_groups)


def loss(model, windows: Windows) -> float:
    (nats,) = nats_of(model, {"text": windows}).values()
    return float(nats.nats_W.sum()) / windows.tokens


def test_the_planted_model_knows_its_text(tmp_path):
    """Else a loss that does not move would say nothing."""
    windows = windows_of(text_of(tmp_path / "both.txt", FIRST, SECOND))
    model = with_dead_experts("softmax", DEAD)
    assert loss(model, windows) < 0.6
    (layer,) = model.sparse_feed_forwards
    with torch.no_grad():
        layer.w_out_EFD[0].zero_()
    assert loss(model, windows) > 1.5


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("method", SCORES)
def test_every_score_drops_all_dead_experts_first_and_the_loss_stays(tmp_path, router, method):
    windows = windows_of(text_of(tmp_path / "both.txt", FIRST, SECOND))
    model = with_dead_experts(router, DEAD)
    reached = gather(model, torch.from_numpy(windows.ids_WS1)).reached
    scores = {layer: SCORES[method].of(seen) for layer, seen in reached.items()}
    assert not np.isnan(scores[1]).any(), "dead experts are reached: it is their score that drops them"
    kept = best_half(scores, model.shape)
    assert kept.experts == {1: tuple(expert for expert in range(8) if expert not in DEAD)}
    smaller = model_of(kept.shape(model.shape), without_experts(stream_of(model), kept))
    assert abs(loss(smaller, windows) - loss(model, windows)) < 1e-6


@pytest.mark.parametrize(("domain", "experts"), [(FIRST, (0, 1, 2, 3)), (SECOND, (4, 5, 6, 7))])
@pytest.mark.parametrize("method", SCORES)
def test_the_experts_of_the_calibrations_domain_survive(tmp_path, method, domain, experts):
    windows = windows_of(text_of(tmp_path / "one.txt", domain))
    model = with_domains()
    reached = gather(model, torch.from_numpy(windows.ids_WS1)).reached
    scores = {layer: SCORES[method].of(seen) for layer, seen in reached.items()}
    assert best_half(scores, model.shape).experts == {1: experts}
    assert not np.isnan(scores[1][list(experts)]).any()
    assert np.isnan(scores[1]).sum() >= 2, "no token of the domain reached the others"


def test_equal_experts_have_equal_scores(tmp_path):
    """Letters of equal shares that two experts serve alike: no score tells the two apart."""
    windows = windows_of(text_of(tmp_path / "both.txt", FIRST, SECOND), tokens=10_000)
    first = {letter: at for at, letter in enumerate(LETTERS)}
    model = planted(first, {letter: (at + 1) % 8 for at, letter in enumerate(LETTERS)})
    reached = gather(model, torch.from_numpy(windows.ids_WS1)).reached[1]
    for score in SCORES.values():
        score_E = score.of(reached)
        assert score_E.max() / score_E.min() < 1.05


def test_domains_part_where_their_intervals_do_not_meet():
    near, far = Interval(mean=0.1, low=0.0, high=0.2), Interval(mean=0.5, low=0.3, high=0.7)
    several = {"prose": 6, "code": 6}
    said = parted({"prose": near, "code": far}, several)
    assert said is not None
    assert "0.500 nats per token on code and by 0.100 on prose" in said
    assert parted({"prose": near, "code": Interval(mean=0.25, low=0.15, high=0.35)}, several) is None
    alike = Interval(mean=9.0, low=None, high=None)
    assert parted({"prose": near, "code": alike}, several) is not None, "in all windows the same"
    assert parted({"prose": near, "code": alike}, {"prose": 6, "code": 5}) is None, "few windows say nothing"


def test_a_choice_that_is_no_better_than_chance_says_so():
    assert no_better("prose", Interval(mean=-0.3, low=-0.5, high=-0.1), "layers") is None
    assert no_better("prose", Interval(mean=-0.3, low=None, high=None), "layers") is None
    said = no_better("prose", Interval(mean=-0.1, low=-0.3, high=0.1), "layers")
    assert said is not None
    assert "on prose the loss is −0.100" in said
    assert "as many layers" in said
