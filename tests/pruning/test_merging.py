"""Merging: equal experts become one and nothing changes; clusters, shares, and groups by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsedial.kernels.reference import swiglu
from sparsedial.model.checkpoint import load, model_of
from sparsedial.model.weights import stream_of
from sparsedial.pruning.gather import gather
from sparsedial.pruning.merging import Merged, merge_alike, with_merged_experts
from sparsedial.pruning.scores import Reached
from tests.model.shapes import FAMILIES, shaken
from tests.pruning.planted import FIRST, SECOND, saved, text_of, with_pairs
from tests.pruning.test_planted import loss, windows_of
from tests.pruning.test_scores import WINDOWS, seen_by


def reached(tokens: list[int], outputs: list[float]) -> Reached:
    return Reached(tokens_E=np.array(tokens), sums={}, outputs_ED=np.array(outputs)[:, None])


@pytest.mark.parametrize("router", ["softmax", "softmax, not normalised", "sigmoid", "groups"])
def test_planted_pairs_are_halved_and_the_loss_stays(tmp_path, router):
    windows, model = windows_of(text_of(tmp_path / "both.txt", FIRST, SECOND)), with_pairs(router)
    seen = gather(model, torch.from_numpy(windows.ids_WS1), outputs=True).reached
    merged = merge_alike(seen, {1: 4}, model.shape.expert_groups)
    assert [set(members) for members in merged.clusters[1].values()] == [{0, 1}, {2, 3}, {4, 5}, {6, 7}]
    smaller = model_of(merged.kept.shape(model.shape), with_merged_experts(stream_of(model), merged))
    assert loss(model, windows) < 0.6
    assert abs(loss(smaller, windows) - loss(model, windows)) < 1e-5


def test_the_nearest_are_merged_by_their_share_of_tokens_and_the_busiest_gives_the_number():
    found = merge_alike({3: reached([1, 6, 3, 2, 0, 0], [0.0, 1.0, 10.0, 0.1, 20.0, 20.1])}, {3: 3}, 1)
    assert {leader: dict(members) for leader, members in found.clusters[3].items()} == {
        1: pytest.approx({0: 1 / 9, 1: 6 / 9, 3: 2 / 9}),
        2: {2: 1.0},
        4: {4: 0.5, 5: 0.5},
    }
    assert found.kept.experts == {3: (1, 2, 4)}


def test_experts_are_merged_inside_their_group():
    found = merge_alike({0: reached([1] * 8, [0, 1, 0, 1, 0, 1, 0, 1])}, {0: 4}, 2)
    assert [set(members) for members in found.clusters[0].values()] == [{0, 2}, {1, 3}, {4, 6}, {5, 7}]


@torch.no_grad()
def test_a_merged_expert_is_the_weighted_mean_of_its_members_and_the_rest_stays():
    model = shaken(replace(FAMILIES["deepseek_v3"], layers=2))
    clusters = {3: {0: 0.25, 3: 0.75}, 1: {1: 1.0}, **{expert: {expert: 1.0} for expert in (2, 4, 5, 6, 7)}}
    merged = Merged({1: clusters})
    smaller = model_of(merged.kept.shape(model.shape), with_merged_experts(stream_of(model), merged))
    (before,), (after,) = model.sparse_feed_forwards, smaller.sparse_feed_forwards
    assert torch.equal(after.w_router_DE, before.w_router_DE[:, 1:])
    assert torch.equal(after.bias_E, before.bias_E[1:])
    torch.testing.assert_close(after.w_in_EDH[2], 0.25 * before.w_in_EDH[0] + 0.75 * before.w_in_EDH[3])
    torch.testing.assert_close(after.w_out_EFD[2], 0.25 * before.w_out_EFD[0] + 0.75 * before.w_out_EFD[3])
    assert torch.equal(after.w_out_EFD[0], before.w_out_EFD[1])


@torch.no_grad()
def test_mean_outputs_are_over_all_tokens_whichever_expert_they_chose():
    model = shaken(replace(FAMILIES["qwen3_moe"], mtp_layers=1))
    found, inputs = gather(model, WINDOWS, outputs=True).reached, seen_by(model, WINDOWS)
    for layer in model.sparse_feed_forwards:
        x_TD = inputs[layer.layer]
        for expert in range(layer.sizes.experts):
            wanted = swiglu(x_TD, layer.w_in_EDH[expert], layer.w_out_EFD[expert]).double().mean(0)
            np.testing.assert_allclose(found[layer.layer].outputs_ED[expert], wanted, atol=1e-6)


def test_prune_merges(tmp_path: Path, monkeypatch):
    import polars

    import sparsedial
    from sparsedial.pruning import speed

    monkeypatch.setattr(speed, "ROUNDS", 1)
    monkeypatch.setattr(speed, "ROUND_SECONDS", 0.0)
    monkeypatch.setattr(speed, "peak_memory", lambda folder, threads: 1)
    text = str(text_of(tmp_path / "both.txt", FIRST, SECOND))
    whole, out = saved(with_pairs(), tmp_path / "whole"), tmp_path / "smaller"
    answer = sparsedial.prune(whole, keep=0.5, calibrate=text, out=out, method="hc-smoe")
    assert abs(answer.loss_increase[text].mean) < 1e-5
    assert answer.after.weight_bytes < answer.before.weight_bytes
    assert [expert // 2 for expert in answer.kept.experts[0]] == [0, 1, 2, 3]
    into = polars.read_parquet(out / "scores.parquet")["into"].to_list()
    assert [expert // 2 for expert in into] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert load(out).shape.experts == 4
