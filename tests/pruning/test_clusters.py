"""Neurons that are active together come together, in clusters of equal size; a router finds what experts write."""

from __future__ import annotations

import numpy as np
import torch

from sparsedial.pruning.clusters import balanced_clusters, told_together
from sparsedial.pruning.fitted_router import fitted_router


def groups_of(labels_F: np.ndarray) -> list[list[int]]:
    return sorted(np.flatnonzero(labels_F == label).tolist() for label in np.unique(labels_F))


def test_what_the_stream_does_not_foretell_brings_no_neurons_together():
    """Three neurons rise with one channel and three with another; across these groups pairs share a strong noise."""
    make = torch.Generator().manual_seed(0)
    x_TD, noise_T3 = torch.randn(3000, 6, generator=make), 3 * torch.randn(3000, 3, generator=make)
    log_TF = torch.cat([x_TD[:, [0, 0, 0]] + noise_T3, x_TD[:, [1, 1, 1]] + noise_T3], dim=1)
    together_FF = told_together(x_TD, log_TF.exp().split(1000), 1e-30).numpy()
    assert groups_of(balanced_clusters(together_FF, 2)) == [[0, 1, 2], [3, 4, 5]]
    seen_FF = (log_TF.t() @ log_TF).double().numpy()
    assert groups_of(balanced_clusters(seen_FF, 3)) == [[0, 3], [1, 4], [2, 5]], "the noise would bring them together"


def test_planted_clusters_are_found_and_are_of_equal_size():
    draw = np.random.default_rng(0)
    owners = draw.permutation(np.repeat(np.arange(6), 5))
    tokens = draw.integers(6, size=400)
    active_TF = (tokens[:, None] == owners) & (draw.random((400, 30)) < 0.7) | (draw.random((400, 30)) < 0.05)
    labels = balanced_clusters((active_TF.T.astype(float) @ active_TF).astype(float), 6)
    assert groups_of(labels) == sorted(np.flatnonzero(owners == owner).tolist() for owner in range(6))


def test_clusters_stay_equal_where_one_kind_of_neuron_is_more_common():
    active_TF = np.repeat(np.eye(2), [7, 2], axis=1)  # seven neurons of one kind, two of another
    labels = balanced_clusters(active_TF.T @ active_TF, 3)
    assert np.bincount(labels).tolist() == [3, 3, 3]
    assert labels[7] == labels[8]


def test_neurons_that_are_never_active_are_divided_too():
    assert np.bincount(balanced_clusters(np.zeros((6, 6)), 3)).tolist() == [2, 2, 2]


def test_a_router_finds_the_expert_that_writes_most():
    make = torch.Generator().manual_seed(0)
    x, w = torch.randn(2000, 8, generator=make), torch.randn(8, 5, generator=make)
    x *= torch.tensor([1, 1, 1, 1, 1, 1, 1, 300.0])  # one channel is far larger than the others
    w[7] /= 300
    found = fitted_router(x[:1500], (2 * x[:1500] @ w).exp())
    agree = (x[1500:] @ found).argmax(1) == (x[1500:] @ w).argmax(1)
    assert float(agree.float().mean()) > 0.97


def test_a_router_survives_channels_and_tokens_without_anything():
    x = torch.eye(4)[[0, 1, 2, 0, 1, 2]]
    written = torch.tensor([[1.0, 0], [0, 1], [0, 0]]).repeat(2, 1)
    found = fitted_router(x, written)
    assert bool(found.isfinite().all())
    assert (x[:2] @ found).argmax(1).tolist() == [0, 1]
    assert not found[3].any()
