"""Whole layers turned off: how much each changes the stream, which stay, and a checkpoint without the others.

B sequences, S positions, D d_model, L layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import polars
import torch
from torch import Tensor
from torch.nn import functional

from sparsedial.errors import UserError
from sparsedial.model.cache import Place
from sparsedial.model.router import Routing
from sparsedial.model.stream import NamedTensor
from sparsedial.model.transformer import Block, Transformer
from sparsedial.pruning.counts import best, nearest, require_some
from sparsedial.pruning.in_turn import Passage
from sparsedial.pruning.kept import Choice, Chooser
from sparsedial.pruning.methods import Ask
from sparsedial.pruning.quality import require_known
from sparsedial.pruning.scores import random_scores
from sparsedial.pruning.shelf import Shelf
from sparsedial.records.prune import KeptParts
from sparsedial.shape.shape import Shape, with_layers


@dataclass(frozen=True)
class KeptLayers:
    """The layers that stay on; modules of multi-token prediction stay too, behind them."""

    layers: tuple[int, ...]  # rising
    of: int  # layers of the whole model

    def share(self, shape: Shape) -> float:
        """The share of all layers."""
        return len(self.layers) / self.of

    def shape(self, shape: Shape) -> Shape:
        """The model without the other layers; each layer that stays is of its own kind, with its own window.

        Raises: UserError where modules of multi-token prediction would become of another kind.
        """
        full = sum(number < shape.full_layers for number in self.layers)
        window = shape.window if full < len(self.layers) else 0
        plain = replace(shape, window=0, full_layers=0)
        smaller = with_layers(plain, [shape.layer(number) for number in self.layers])
        smaller = replace(smaller, window=window, full_layers=full if window else 0)
        if shape.mtp_layers and smaller.layer(len(self.layers)) != shape.layer(self.of):
            raise UserError(
                "no layer stays that is of the kind of the modules of multi-token prediction",
                hint="a larger <keep> leaves one",
                field="keep",
            )
        return smaller

    def stream(self, tensors: Iterable[NamedTensor]) -> Iterator[NamedTensor]:
        """The tensors without those of the other layers; those that stay are numbered anew, in their order."""
        behind = len(self.layers) - self.of
        places = {number: place for place, number in enumerate(self.layers)}
        for tensor in tensors:
            number = tensor.name.layer
            if number is None:
                yield tensor
            elif number >= self.of or number in places:
                place = places.get(number, number + behind)
                yield replace(tensor, name=replace(tensor.name, layer=place))

    def parts(self, shape: Shape) -> KeptParts:
        """The layers."""
        return KeptParts(experts=None, layers=self.layers, d_ff=None, weights_share=None)


def without_layers_to_turn_off(shape: Shape) -> str | None:
    """Why a model has none."""
    return None if shape.layers > 1 else "has a single layer"


def require_share_of_layers(shape: Shape, ask: Ask) -> KeptLayers:
    """As many layers as a share keeps, the first ones.

    Raises: UserError for a share that keeps no layer or all of them.
    """
    count = nearest(ask.keep * shape.layers)
    require_some(ask.keep, count, shape.layers, "layers")
    return KeptLayers(tuple(range(count)), shape.layers)


def sizes_of_layers(shape: Shape, ask: Ask) -> Iterable[int]:
    """The number of layers, which a share of them is rounded to."""
    return [shape.layers]


def calibrate_layers(
    model: Transformer, windows_WS1: Tensor, asks: Sequence[Ask], shelf: Shelf | None = None
) -> Chooser:
    """Read the calibration once, and give what chooses by it.

    Shapes: [W, S+1]
    Raises: UserError for a calibration text that the model knows less of than a uniform guess does.
    """
    loss, influence_L = block_influence(model, windows_WS1, shelf)
    require_known(loss, model.shape)
    return partial(choose_layers, model.shape, influence_L)


def choose_layers(shape: Shape, influence_L: np.ndarray, ask: Ask) -> Choice:
    """Choose by how much each layer turns the stream. Shapes: [L]"""
    count = nearest(ask.keep * shape.layers)
    kept = keep_layers(_drawn(shape, ask.seed) if ask.how.drawn else influence_L, count, shape)
    return Choice(
        kept=kept,
        controls=tuple(keep_layers(_drawn(shape, seed), count, shape) for seed in ask.controls),
        scores=polars.DataFrame(
            {
                "layer": range(shape.layers),
                "block-influence": influence_L,
                "kept": [number in kept.layers for number in range(shape.layers)],
            }
        ),
    )


def _drawn(shape: Shape, seed: int) -> np.ndarray:
    (scores_L,) = random_scores({0: shape.layers}, seed).values()
    return scores_L


def keep_layers(scores_L: np.ndarray, count: int, shape: Shape) -> KeptLayers:
    """The layers of the highest scores. Where there is multi-token prediction, the best of its kind is among them."""
    first = scores_L.copy()
    alike = [number for number in range(shape.layers) if shape.layer(number) == shape.layer(shape.layers)]
    if shape.mtp_layers and alike:
        first[max(alike, key=lambda number: scores_L[number])] = np.inf
    return KeptLayers(best(first, count), shape.layers)


@torch.no_grad()
def block_influence(model: Transformer, windows_WS1: Tensor, shelf: Shelf | None = None) -> tuple[float, np.ndarray]:
    """The loss of a text in nats per token, and how much each layer turns the stream of its tokens.

    Influence is 1 - the mean cosine between the stream before a layer and after it.

    Shapes: [W, S+1] to [L]
    Source: ShortGPT, arXiv 2403.03853, section 2
    """
    passage, influence = Passage(model, windows_WS1, shelf), list[float]()
    for turn in passage.turns():
        total = torch.zeros((), dtype=torch.float64)
        turn.pass_on(partial(_turning, turn.block, total))
        influence.append(1 - float(turn.found(lambda total=total: {"cosines": total})["cosines"]()) / passage.tokens)
    return float(passage.end(lambda: {"loss": passage.loss()})["loss"]()), np.array(influence)


def _turning(block: Block, total: Tensor, x_BSD: Tensor, place: Place) -> Tensor:
    """The stream after a layer; the cosines between it and the one before are added to the total."""
    after_BSD = block(x_BSD, place, Routing())
    total += functional.cosine_similarity(x_BSD.double(), after_BSD.double(), dim=2).sum().cpu()
    return after_BSD
