"""Targets of size: the largest share that keeps them, however parts are rounded, and refusals that name the nearest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars
import pytest

from sparsedial.errors import UserError
from sparsedial.model.checkpoint import model_of
from sparsedial.model.transformer import initialise
from sparsedial.model.weights import stream_of
from sparsedial.pruning.counts import COUNTS, keep_best, nearest
from sparsedial.pruning.kept import Choice, Kept
from sparsedial.pruning.layers import keep_layers
from sparsedial.pruning.methods import Ask
from sparsedial.pruning.parts import PARTS
from sparsedial.pruning.sizing import choose_by_size, require_size, series, shares_of, size_of
from sparsedial.pruning.target import Target
from tests.model.shapes import FAMILIES, UNEQUAL
from tests.pruning.test_counts import WIDE
from tests.pruning.test_layers import DEEP

MTP = replace(FAMILIES["mixtral"], mtp_layers=1)
CUTS = {
    "experts": (FAMILIES["mixtral"], Ask(method="reap")),
    "experts in groups": (WIDE, Ask(method="reap")),
    "experts, layers differ": (replace(UNEQUAL, mtp_layers=0), Ask(method="reap")),
    "experts, layers compete": (MTP, Ask(method="reap", budget="global")),
    "layers": (DEEP["llama"], Ask(method="block-influence")),
    "neurons": (FAMILIES["llama"], Ask(method="activation")),
    "neurons and shared experts": (replace(FAMILIES["deepseek_v3"], shared_experts=3), Ask(method="activation")),
    "neurons, layers compete": (FAMILIES["llama"], Ask(method="activation", budget="global")),
}
KINDS = ("total_parameters", "active_parameters", "memory_bytes")


def tensors_of(shape):
    return tuple(stream_of(initialise(shape, 0)))


def chosen(kept: Kept) -> Choice:
    return Choice(kept=kept, controls=(), scores=polars.DataFrame())


@pytest.mark.parametrize("sizes", [(4,), (8, 6), (3, 24), (5, 7, 5)])
def test_there_is_a_share_for_each_way_of_rounding(sizes):
    fine = [tuple(nearest(keep * size) for size in sizes) for keep in np.linspace(0, 1, 20_001)]
    found = [tuple(nearest(keep * size) for size in sizes) for keep in series(sizes)]
    ways = list(dict.fromkeys(fine))
    assert found == [way for way in ways if any(way) and way != tuple(sizes)]
    assert series((4,)) == pytest.approx([0.25, 0.5, 0.75])


def test_the_shares_are_those_that_the_model_allows():
    assert shares_of(*CUTS["experts"]) == pytest.approx([n / 8 for n in range(2, 8)]), "a token visits two"
    assert shares_of(FAMILIES["deepseek_v2, groups and scaling"], Ask(method="reap")) == pytest.approx([0.5])
    assert shares_of(*CUTS["layers"]) == pytest.approx([0.25, 0.5, 0.75])
    assert shares_of(FAMILIES["llama"], Ask(method="wanda", pattern="2:4")) == pytest.approx([0.5])
    assert shares_of(FAMILIES["llama"], Ask(method="wanda")) == pytest.approx([n / 16 for n in range(1, 16)])


def test_a_model_that_allows_no_share_says_why():
    full = replace(FAMILIES["mixtral"], top_k=8)
    with pytest.raises(UserError, match="a token's 8 choices need at least 8"):
        shares_of(full, Ask(method="reap"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", CUTS)
def test_the_largest_share_that_keeps_a_size_is_taken_and_no_other(cut, kind):
    shape, ask = CUTS[cut]
    tensors, require = tensors_of(shape), PARTS[ask.how.part].require
    sizes = {
        keep: size_of(Target(kind, 0), shape, tensors, require(shape, replace(ask, keep=keep)))
        for keep in shares_of(shape, ask)
    }
    assert list(sizes.values()) == sorted(sizes.values())
    for size in sizes.values():
        for asked in (size, size + 1):
            best = max(keep for keep, other in sizes.items() if other <= asked)
            assert require_size(Target(kind, asked), shape, tensors, ask) == best
    whole, most, least = size_of(Target(kind, 0), shape, tensors), max(sizes.values()), min(sizes.values())
    assert most < whole
    with pytest.raises(UserError, match=f"the model has {whole:,}; the nearest below is {most:,}"):
        require_size(Target(kind, whole), shape, tensors, ask)
    with pytest.raises(UserError, match=f"no share keeps at most .*: the nearest is {least:,}") as refused:
        require_size(Target(kind, least - 1), shape, tensors, ask)
    assert refused.value.field == kind.removesuffix("_bytes")


@pytest.mark.parametrize("cut", CUTS)
def test_a_size_is_that_of_the_model_that_stays(cut):
    shape, ask = CUTS[cut]
    tensors = tensors_of(shape)
    kept = PARTS[ask.how.part].require(shape, replace(ask, keep=0.5))
    model = model_of(kept.shape(shape), kept.stream(tensors))
    stored = [*model.parameters(), *(layer.bias_E for layer in model.sparse_feed_forwards if layer.bias_E is not None)]
    assert size_of(Target("memory_bytes", 0), shape, tensors, kept) == sum(4 * one.numel() for one in stored)
    modules = sum(one.numel() for one in model.predictions.parameters())
    counted = sum(one.numel() for one in model.parameters()) - modules
    assert size_of(Target("total_parameters", 0), shape, tensors, kept) == counted


@pytest.mark.parametrize("kind", ["total_parameters", "memory_bytes"])
@pytest.mark.parametrize("scores", [(5, 4, 3, 2, 1), (1, 2, 3, 4, 5), (3, 1, 5, 2, 4)])
def test_layers_of_several_kinds_are_counted_by_which_of_them_stay(scores, kind):
    """Of two dense layers and three sparse ones, which are larger."""
    shape, ask = DEEP["deepseek_v3"], Ask(method="block-influence")
    tensors, scores_L = tensors_of(shape), np.array(scores, dtype=float)
    by_count = {
        count: size_of(Target(kind, 0), shape, tensors, keep_layers(scores_L, count, shape)) for count in range(1, 5)
    }

    def choose(keep: float) -> Choice:
        return chosen(keep_layers(scores_L, nearest(keep * 5), shape))

    for count, size in by_count.items():
        target = Target(kind, size)
        assert require_size(target, shape, tensors, ask) is None
        choice = choose_by_size(target, shape, tensors, ask, choose)
        assert choice.kept.share(shape) == pytest.approx(count / 5)
    with pytest.raises(UserError, match=f"the nearest is {by_count[1]:,}"):
        choose_by_size(Target(kind, by_count[1] - 1), shape, tensors, ask, choose)


def test_modules_of_multi_token_prediction_count_with_as_many_experts_as_the_largest_layer():
    """Where the scores leave one layer whole, the module has all experts too, and fewer others can stay."""
    ask, tensors = Ask(method="reap", budget="global"), tensors_of(MTP)
    scores = {0: np.full(8, 1.0), 1: np.array([1.0, 1, 1, 1, 0.1, 0.1, 0.1, 0.1]), 2: np.full(8, 1.0)}

    def choose(keep: float) -> Choice:
        return chosen(keep_best(scores, COUNTS["global"](scores, MTP, keep), 1))

    sizes = {keep: size_of(Target("memory_bytes", 0), MTP, tensors, choose(keep).kept) for keep in shares_of(MTP, ask)}
    for asked in sizes.values():
        best = max(keep for keep, size in sizes.items() if size <= asked)
        found = choose_by_size(Target("memory_bytes", asked), MTP, tensors, ask, choose).kept
        assert found.share(MTP) == choose(best).kept.share(MTP)
        assert size_of(Target("memory_bytes", 0), MTP, tensors, found) <= asked


def test_the_scores_are_asked_once_where_every_choice_is_as_large():
    """What calibrates for each share would otherwise do so again and again."""
    shape, ask = CUTS["experts"]
    asked, scores = [], {0: np.arange(8.0), 1: np.arange(8.0)}

    def choose(keep: float) -> Choice:
        asked.append(keep)
        return chosen(keep_best(scores, COUNTS["uniform"](scores, shape, keep), 1))

    tensors = tensors_of(shape)
    target = Target("memory_bytes", 0.6 * size_of(Target("memory_bytes", 0), shape, tensors))
    choose_by_size(target, shape, tensors, ask, choose)
    assert len(asked) == 1
