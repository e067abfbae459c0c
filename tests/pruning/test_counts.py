"""Which experts stay: shares that a router allows, groups that stay equal, experts without a score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sparsedial.errors import UserError
from sparsedial.pruning.counts import COUNTS, global_counts, keep_best, uniform_counts
from sparsedial.pruning.experts import KeptExperts, sparse_layers
from sparsedial.shape.shape import Shape
from tests.model.shapes import FAMILIES, UNEQUAL

MIXTRAL = FAMILIES["mixtral"]  # 8 experts, top-2, softmax
GROUPED = FAMILIES["deepseek_v2, groups and scaling"]  # 4 groups of 2, a token chooses in 2
WIDE = replace(FAMILIES["deepseek_v3, groups and YaRN"], experts=24)  # 4 groups of 6, sigmoid


def alike(shape: Shape) -> dict[int, np.ndarray]:
    """Scores that tell no expert from another."""
    return {number: np.ones(layer.experts) for number, layer in sparse_layers(shape).items()}


def kept(shape: Shape, keep: float) -> int:
    return uniform_counts({}, shape, keep)[shape.layers - 1]


def best(scores, shape: Shape, keep: float, budget: str = "uniform") -> dict[int, tuple[int, ...]]:
    return dict(keep_best(scores, COUNTS[budget](scores, shape, keep), shape.expert_groups).experts)


@pytest.mark.parametrize(
    ("shape", "keep", "count"),
    [(MIXTRAL, 0.5, 4), (MIXTRAL, 0.3, 2), (MIXTRAL, 0.7, 6), (GROUPED, 0.5, 4), (WIDE, 0.5, 12), (WIDE, 0.6, 16)],
)
def test_a_share_becomes_the_nearest_number_that_the_router_allows(shape, keep, count):
    assert kept(shape, keep) == count


@pytest.mark.parametrize(
    ("shape", "keep", "says", "hint"),
    [
        (MIXTRAL, 0.1, r"0.1 keeps 1 of 8 experts; a token's 2 choices need at least 2", "<keep> 0.25"),
        (MIXTRAL, 0.99, r"0.99 of 8 experts is all of them", "<keep> 0.875"),
        (GROUPED, 0.1, r"keeps 0 of 8 experts in 4 groups, of which a token chooses from 2", "<keep> 0.5"),
        (WIDE, 0.2, r"keeps 4 of 24 experts in 4 groups.* need at least 8", "<keep> 0.3333"),
        (replace(WIDE, kept_groups=1, top_k=4), 0.5, r"a token's 4 choices need at least 16", "<keep> 0.6667"),
    ],
)
def test_a_share_that_leaves_too_few_or_all_is_refused(shape, keep, says, hint):
    with pytest.raises(UserError, match=says) as refused:
        kept(shape, keep)
    assert hint in (refused.value.marked[1] or "")
    assert refused.value.field == "keep"


def test_the_best_stay_and_those_without_a_score_go_first():
    scores = {0: np.array([3, 1, np.nan, 5, 4, 2, np.nan, 0.0]), 1: np.array([1.0] * 8)}
    assert best(scores, MIXTRAL, 0.5) == {0: (0, 3, 4, 5), 1: (0, 1, 2, 3)}
    assert best(scores, MIXTRAL, 0.75)[0] == (0, 1, 3, 4, 5, 7)


def test_each_group_loses_equally_many():
    scores_E = np.arange(24.0)  # the best are all in the last groups
    for experts in best(dict.fromkeys(sparse_layers(WIDE), scores_E), WIDE, 0.5).values():
        assert [sum(expert // 6 == group for expert in experts) for group in range(4)] == [3, 3, 3, 3]
        assert experts[:3] == (3, 4, 5)


@pytest.mark.parametrize("family", [name for name, shape in FAMILIES.items() if shape.experts])
def test_keeping_all_is_the_same_shape_and_keeping_half_changes_only_the_number(family):
    shape = replace(FAMILIES[family], mtp_layers=1)
    layers = sparse_layers(shape)
    assert shape.layers in layers, "multi-token prediction has experts too"
    whole = KeptExperts({number: tuple(range(layer.experts)) for number, layer in layers.items()})
    half = KeptExperts({number: tuple(range(layer.experts // 2)) for number, layer in layers.items()})
    assert whole.shape(shape) == shape
    assert half.shape(shape) == replace(shape, experts=shape.experts // 2)


def test_layers_that_differ_keep_their_shares():
    found = KeptExperts(best({1: np.arange(8.0), 2: np.arange(6.0), 3: np.arange(3.0)}, UNEQUAL, 0.67))
    assert {number: len(experts) for number, experts in found.experts.items()} == {1: 5, 2: 4, 3: 2}
    assert [found.shape(UNEQUAL).layer(number).experts for number in range(4)] == [0, 5, 4, 2]


def test_layers_compete_by_their_scores_over_their_means():
    """The second layer's scores are a thousand times as large, and its worst experts are no worse for their layer."""
    scores = {0: np.array([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1]), 1: 1000 * np.array([1, 1, 1, 1, 1, 1, 0.9, 0.2])}
    assert best(scores, MIXTRAL, 11 / 16, "global") == {0: (0, 1, 2, 3), 1: (0, 1, 2, 3, 4, 5, 6)}
    assert best(scores, MIXTRAL, 0.25, "global") == {0: (0, 1), 1: (0, 1)}, "each layer keeps what a token chooses"


def test_experts_without_a_score_go_first_in_every_layer():
    scores = {0: np.arange(1.0, 9.0), 1: np.array([np.nan] * 4 + [1.0] * 4)}
    assert best(scores, MIXTRAL, 0.75, "global") == {0: tuple(range(8)), 1: (4, 5, 6, 7)}


def test_groups_stay_equal_where_layers_compete():
    draw = np.random.default_rng(0)
    scores = {number: draw.random(24) for number in sparse_layers(WIDE)}
    found = best(scores, WIDE, 0.6, "global")
    assert sum(map(len, found.values())) == 4 * round(0.6 * 6 * len(found))
    assert len({len(experts) for experts in found.values()}) > 1, "layers differ"
    for experts in found.values():
        assert len({sum(expert // 6 == group for expert in experts) for group in range(4)}) == 1


def test_multi_token_prediction_keeps_as_many_as_the_largest_layer():
    shape = replace(MIXTRAL, mtp_layers=1)
    scores = {0: np.array([1.0] * 8), 1: np.array([1.0] * 6 + [0.1] * 2), 2: np.arange(8.0)}
    found = KeptExperts(best(scores, shape, 14 / 16, "global"))
    assert {number: len(experts) for number, experts in found.experts.items()} == {0: 8, 1: 6, 2: 8}
    assert [found.shape(shape).layer(number).experts for number in range(3)] == [8, 6, 8]


@pytest.mark.parametrize(
    ("keep", "says"),
    [(0.1, "keeps 2 of 16 experts; a token's choices in all layers need at least 4"), (0.99, "all of")],
)
def test_a_share_that_leaves_too_few_or_all_is_refused_where_layers_compete_too(keep, says):
    with pytest.raises(UserError, match=says):
        global_counts(alike(MIXTRAL), MIXTRAL, keep)
