"""Experts chosen layer after layer, each by a calibration of the model whose earlier layers are cut already."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from sparsedial.model.router import Routing
from sparsedial.model.transformer import Transformer
from sparsedial.pruning.counts import keep_best
from sparsedial.pruning.experts import KeptExperts, masks, sparse_layers
from sparsedial.pruning.gather import Tally, modules_held, predict, reached_of, tensors_of
from sparsedial.pruning.in_turn import Passage, Turn
from sparsedial.pruning.scores import Reached, Score
from sparsedial.pruning.shelf import Shelf


@torch.no_grad()
def keep_in_turn(
    model: Transformer, windows_WS1: Tensor, score: Score, counts: Mapping[int, int], shelf: Shelf | None = None
) -> tuple[dict[int, Reached], KeptExperts]:
    """So many experts of each layer, and what the calibration of each layer showed.

    Each layer computes twice, and no layer before it again.

    Shapes: [W, S+1]
    """
    shape, reached = model.shape, dict[int, Reached]()
    kept = {number: tuple(range(layer.experts)) for number, layer in sparse_layers(shape).items()}

    def choose(number: int, seen: Reached) -> None:
        reached[number] = seen
        kept.update(keep_best({number: score.of(seen)}, {number: counts[number]}, shape.expert_groups).experts)

    passage = Passage(model, windows_WS1, shelf)
    for turn in passage.turns():
        if turn.number in counts:
            group = turn.found(partial(_reached, turn, shape.layer(turn.number).experts))
            choose(turn.number, reached_of(group, [turn.number])[turn.number])
        turn.pass_on(partial(turn.block, routing=Routing(kept=masks(KeptExperts(kept), shape))))
    behind = [number for number in counts if number >= shape.layers]

    def modules() -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for number in behind:
            tally = Tally({number: layer.experts for number, layer in sparse_layers(shape).items()})
            for batch in passage.last():
                predict(model, Routing(watch=tally, kept=masks(KeptExperts(kept), shape)), *batch)
            seen = {number: tally.reached[number]}
            choose(number, seen[number])
            found |= tensors_of(seen)
        return found

    with modules_held(model):
        group = passage.end(modules)
    for number, seen in reached_of(group, behind).items():
        choose(number, seen)
    return reached, KeptExperts(kept)


def _reached(turn: Turn, experts: int) -> dict[str, Tensor]:
    """What a layer's tokens show of its experts, all of which are on."""
    tally = Tally({turn.number: experts})
    for x_BSD, place in turn.inputs:
        turn.block(x_BSD, place, Routing(watch=tally))
    return tensors_of(tally.reached)
