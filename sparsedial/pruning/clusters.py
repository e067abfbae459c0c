"""Neurons in clusters of equal size: those that are active on the same tokens come together.

T tokens, F neurons, E clusters.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

ROUNDS = 20


def active_together(strength_TF: Tensor, count: int) -> Tensor:
    """On how many tokens each two neurons are both among so many strongest; a strength of 0 is not.

    Shapes: to [F, F]
    Source: the binary activation vectors of CMoE (arXiv 2502.04416), section 3, of which these are the products
    """
    strongest = strength_TF.topk(count, dim=1)
    active_TF = torch.zeros_like(strength_TF).scatter_(1, strongest.indices, (strongest.values > 0).float())
    return active_TF.t() @ active_TF


def balanced_clusters(together_FF: np.ndarray, clusters: int) -> np.ndarray:
    """The cluster of each neuron, by balanced k-means on their activation vectors, given by the products of each two.

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
