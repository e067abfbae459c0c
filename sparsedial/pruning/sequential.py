"""Experts chosen layer after layer, each by a calibration of the model whose earlier layers are cut already."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sparsedial.model.transformer import Transformer
from sparsedial.pruning.counts import keep_best
from sparsedial.pruning.experts import KeptExperts, masks, sparse_layers
from sparsedial.pruning.gather import gather
from sparsedial.pruning.scores import Reached, Score


def keep_in_turn(
    model: Transformer, windows_WS1: Tensor, score: Score, counts: Mapping[int, int]
) -> tuple[dict[int, Reached], KeptExperts]:
    """So many experts of each layer, and what the calibration of each layer showed.

    Shapes: [W, S+1]
    """
    shape, reached = model.shape, {}
    kept = {number: tuple(range(layer.experts)) for number, layer in sparse_layers(shape).items()}
    for number, count in counts.items():
        reached[number] = gather(model, windows_WS1, kept=masks(KeptExperts(kept), shape)).reached[number]
        kept |= keep_best({number: score.of(reached[number])}, {number: count}, shape.expert_groups).experts
    return reached, KeptExperts(kept)
