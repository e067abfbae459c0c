"""Experts that are merged instead of removed: which belong together, and the stream with one for each cluster.

E experts, D d_model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.cluster.hierarchy import cut_tree, linkage
from torch import Tensor

from sparsedial.model.stream import NamedTensor
from sparsedial.pruning.experts import KeptExperts, without_experts
from sparsedial.pruning.scores import Reached
from sparsedial.records.prune import KeptParts
from sparsedial.shape.shape import Shape
from sparsedial.shape.tensors import EXPERTS, Name

Cluster = Mapping[int, float]  # the share of each member in the merged expert


@dataclass(frozen=True)
class Merged:
    """The clusters of each sparse layer, by the member that most tokens reach: it gives the row of the router."""

    clusters: Mapping[int, Mapping[int, Cluster]]

    @property
    def kept(self) -> KeptExperts:
        """The experts whose rows and numbers stay."""
        return KeptExperts({layer: tuple(sorted(clusters)) for layer, clusters in self.clusters.items()})

    def share(self, shape: Shape) -> float:
        """Clusters over experts."""
        return self.kept.share(shape)

    def shape(self, shape: Shape) -> Shape:
        """The model with one expert for each cluster."""
        return self.kept.shape(shape)

    def stream(self, tensors: Iterable[NamedTensor]) -> Iterator[NamedTensor]:
        """Its tensors."""
        return with_merged_experts(tensors, self)

    def parts(self, shape: Shape) -> KeptParts:
        """The experts whose rows and numbers stay."""
        return self.kept.parts(shape)


def merge_alike(reached: Mapping[int, Reached], counts: Mapping[int, int], groups: int) -> Merged:
    """Experts whose mean outputs are near each other, in so many clusters of each layer and equally many of each group.

    Hierarchical clustering by average linkage. A member's share is its share of the cluster's tokens; where no token
    reached the cluster, all have the same.

    Source: HC-SMoE, arXiv 2410.08589
    """
    return Merged({layer: _clusters(seen, counts[layer] // groups, groups) for layer, seen in reached.items()})


def _clusters(seen: Reached, count: int, groups: int) -> dict[int, Cluster]:
    of_group = len(seen.tokens_E) // groups
    found = {}
    for first in range(0, len(seen.tokens_E), of_group):
        tree = linkage(seen.outputs_ED[first : first + of_group], method="average")
        labels = cut_tree(tree, n_clusters=count)[:, 0]
        for label in range(count):
            members = first + np.flatnonzero(labels == label)
            found[int(members[np.argmax(seen.tokens_E[members])])] = _shares(members, seen.tokens_E[members])
    return found


def _shares(members: np.ndarray, tokens: np.ndarray) -> Cluster:
    weights = tokens / tokens.sum() if tokens.sum() else np.full(len(tokens), 1 / len(tokens))
    return {int(member): float(weight) for member, weight in zip(members, weights, strict=True)}


def with_merged_experts(tensors: Iterable[NamedTensor], merged: Merged) -> Iterator[NamedTensor]:
    """The stream with one expert for each cluster: the mean of its members, each by its share."""
    stream = list(tensors)
    experts = {tensor.name: tensor for tensor in stream if tensor.name.part.startswith(EXPERTS)}
    whole = {
        name: _mean(tensor, _members(name, experts, merged)) if _leads(name, merged) else tensor
        for name, tensor in experts.items()
    }
    return without_experts((whole.get(tensor.name, tensor) for tensor in stream), merged.kept)


def _leads(name: Name, merged: Merged) -> bool:
    return name.layer is not None and name.expert in merged.clusters[name.layer]


def _members(name: Name, experts: Mapping[Name, NamedTensor], merged: Merged) -> list[tuple[NamedTensor, float]]:
    assert name.layer is not None
    assert name.expert is not None
    cluster = merged.clusters[name.layer][name.expert]
    return [(experts[replace(name, expert=member)], share) for member, share in cluster.items()]


def _mean(tensor: NamedTensor, members: list[tuple[NamedTensor, float]]) -> NamedTensor:
    """A tensor with the weighted mean of others' values, summed in double precision."""

    def values() -> Tensor:
        total = sum(share * member.values().double() for member, share in members if share)
        assert isinstance(total, Tensor)
        return total.to(tensor.dtype)

    return replace(tensor, values=values)
