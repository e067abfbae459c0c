"""What was chosen: the experts that stay, or the clusters that they are merged into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparsedial.model.stream import NamedTensor
from sparsedial.pruning.kept import Kept
from sparsedial.pruning.merging import Merged, with_merged_experts
from sparsedial.pruning.removal import without_experts
from sparsedial.pruning.scores import Reached


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """Which experts stay on, and why."""

    reached: Mapping[int, Reached]
    kept: Kept
    merged: Merged | None  # None where experts are removed, not merged
    controls: tuple[Kept, ...]  # as many experts of each layer, drawn; none where the choice itself is drawn

    def stream(self, tensors: Sequence[NamedTensor]) -> Iterator[NamedTensor]:
        """The smaller checkpoint."""
        return with_merged_experts(tensors, self.merged) if self.merged else without_experts(tensors, self.kept)

    @property
    def into(self) -> Mapping[int, Mapping[int, int]]:
        """By layer and expert, the one that it stays as or is merged into; those that are removed are missing."""
        if self.merged is None:
            return {layer: {expert: expert for expert in on} for layer, on in self.kept.experts.items()}
        return {
            layer: {member: leader for leader, members in clusters.items() for member in members}
            for layer, clusters in self.merged.clusters.items()
        }

    @property
    def unscored(self) -> tuple[tuple[int, int], ...]:
        """Experts that no calibration token reached, as layer and number."""
        return tuple(
            (layer, int(expert))
            for layer, seen in self.reached.items()
            for expert in np.flatnonzero(seen.tokens_E == 0)
        )
