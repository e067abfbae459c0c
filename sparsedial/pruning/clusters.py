"""Neurons in clusters of equal size: those that a router would tell to be active on the same tokens come together.

T tokens, D d_model, F neurons, E clusters.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from sparsedial.pruning.fitted_router import linear_fit

ROUNDS = 20


def told_together(x_TD: Tensor, strengths: Iterable[Tensor], silent: float) -> Tensor:
    """The products of each two neurons' logarithms of strength, of which only what the stream foretells counts.

    A router chooses by a linear map of the stream, so neurons belong together whose strength such a map tells alike.
    CMoE (arXiv 2502.04416) brings together what is active on the same tokens, foretold or not; in a real layer a token
    then missed 10 to 20 % more (LOG.md). `strengths` come some tokens at a time, and `silent` is added to them.

    Shapes: the normed stream, and strengths [n, F], to [F, F] in float64
    Source: ours
    """
    log_TF = torch.cat([(strength_nF + silent).log() for strength_nF in strengths])
    w_DF = linear_fit(x_TD, log_TF - log_TF.mean(1, keepdim=True)).double()
    return w_DF.t() @ (x_TD.t() @ x_TD).double() @ w_DF


def balanced_clusters(together_FF: np.ndarray, clusters: int) -> np.ndarray:
    """The cluster of each neuron, by balanced k-means on vectors of theirs, given by the products of each two.

    The distance to a centre follows from the products alone. Neurons choose their cluster one after the other, first
    those that have the most to lose; a full cluster takes no more.

    Shapes: [F, F] to [F] of 0..E-1
    Source: CMoE, section 3; it assigns by Jonker and Volgenant's algorithm, which takes F^3
    """
    size = len(together_FF) // clusters
    labels_F = _chosen(_costs(together_FF, np.eye(len(together_FF))[:, _far_apart(together_FF, clusters)]), size)
    best_F, least = labels_F, np.inf
    for _ in range(ROUNDS):
        costs_FE = _costs(together_FF, np.eye(clusters)[labels_F])
        total = float(costs_FE[np.arange(len(labels_F)), labels_F].sum())
        if total >= least:
            break
        best_F, least = labels_F, total
        labels_F = _chosen(costs_FE, size)
    return best_F


def _far_apart(together_FF: np.ndarray, count: int) -> list[int]:
    """Neurons to begin with: the most active one, then always the one that is farthest from those before it."""
    own_F = together_FF.diagonal()
    found, nearest_F = [int(own_F.argmax())], np.full(len(own_F), np.inf)
    while len(found) < count:
        last = found[-1]
        nearest_F = np.minimum(nearest_F, own_F + own_F[last] - 2 * together_FF[last])
        nearest_F[found] = -np.inf
        found.append(int(nearest_F.argmax()))
    return found


def _costs(together_FF: np.ndarray, members_FE: np.ndarray) -> np.ndarray:
    """The squared distance of each neuron to each centre, without its own square. Shapes: to [F, E]"""
    count_E = members_FE.sum(0)
    mean_FE = together_FF @ members_FE / count_E
    return (members_FE * mean_FE).sum(0) / count_E - 2 * mean_FE


def _chosen(costs_FE: np.ndarray, size: int) -> np.ndarray:
    """Each neuron's cluster of `size` neurons. Shapes: to [F]"""
    best_F2 = np.partition(costs_FE, 1, axis=1)[:, :2]
    labels_F, room_E = np.empty(len(costs_FE), dtype=int), np.full(costs_FE.shape[1], size)
    for neuron in np.argsort(best_F2[:, 0] - best_F2[:, 1], kind="stable"):
        labels_F[neuron] = np.where(room_E > 0, costs_FE[neuron], np.inf).argmin()
        room_E[labels_F[neuron]] -= 1
    return labels_F
