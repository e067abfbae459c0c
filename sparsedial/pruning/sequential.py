"""Experts chosen layer after layer, each by a calibration of the model whose earlier layers are cut already."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from sparsedial.evaluation.scorer import windows_at_once
from sparsedial.model.router import Routing
from sparsedial.model.transformer import Transformer
from sparsedial.pruning.counts import keep_best
from sparsedial.pruning.experts import KeptExperts, masks, sparse_layers
from sparsedial.pruning.gather import Tally, gather
from sparsedial.pruning.scores import Reached, Score


@torch.no_grad()
def keep_in_turn(
    model: Transformer, windows_WS1: Tensor, score: Score, counts: Mapping[int, int]
) -> tuple[dict[int, Reached], KeptExperts]:
    """So many experts of each layer, and what the calibration of each layer showed.

    The stream of all windows is held, so that each layer computes twice and no layer before it again.

    Shapes: [W, S+1]
    """
    shape, reached = model.shape, dict[int, Reached]()
    kept = {number: tuple(range(layer.experts)) for number, layer in sparse_layers(shape).items()}

    def choose(number: int, seen: Reached) -> None:
        reached[number] = seen
        kept.update(keep_best({number: score.of(seen)}, {number: counts[number]}, shape.expert_groups).experts)

    batches = windows_WS1[:, :-1].split(windows_at_once(windows_WS1.shape[1]))
    streams = [functional.embedding(ids_BS, model.embedding_VD) for ids_BS in batches]
    places = [model.place(ids_BS) for ids_BS in batches]
    for number, block in enumerate(model.blocks):
        if number in counts:
            tally = Tally({number: shape.layer(number).experts})
            for x_BSD, place in zip(streams, places, strict=True):
                block(x_BSD, place, Routing(watch=tally))
            choose(number, tally.reached[number])
        routing = Routing(kept=masks(KeptExperts(kept), shape))
        streams = [block(x_BSD, place, routing) for x_BSD, place in zip(streams, places, strict=True)]
    for number in (number for number in counts if number >= shape.layers):
        choose(number, gather(model, windows_WS1, kept=masks(KeptExperts(kept), shape)).reached[number])
    return reached, KeptExperts(kept)
