"""The parts that can be turned off: what a model must have, which shares it allows, and how a choice is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from sparsedial.model.transformer import Transformer
from sparsedial.pruning import choosing_experts as experts
from sparsedial.pruning import layers, neurons, weights
from sparsedial.pruning.kept import Chooser, Kept
from sparsedial.pruning.methods import Ask, PartName, methods_of
from sparsedial.pruning.shelf import Shelf
from sparsedial.shape.shape import Shape


@dataclass(frozen=True, kw_only=True)
class Part:
    """One kind of part."""

    lacking: Callable[[Shape], str | None]  # why nothing of it can be turned off in a model
    sizes: Callable[[Shape, Ask], Iterable[int]]  # the numbers of things that a share is rounded to
    require: Callable[[Shape, Ask], Kept]  # as much without scores; refuses what none can help, before a weight is read
    calibrate: Callable[[Transformer, Tensor, Sequence[Ask], Shelf | None], Chooser]  # on [W, S+1], once for all asks
    shrinks: bool = True  # else zeros are stored, and nothing gets smaller or faster


PARTS: Mapping[PartName, Part] = {
    "experts": Part(
        lacking=experts.without_experts_to_turn_off,
        sizes=experts.sizes_of_experts,
        require=experts.require_share_of_experts,
        calibrate=experts.calibrate_experts,
    ),
    "layers": Part(
        lacking=layers.without_layers_to_turn_off,
        sizes=layers.sizes_of_layers,
        require=layers.require_share_of_layers,
        calibrate=layers.calibrate_layers,
    ),
    "neurons": Part(
        lacking=neurons.without_neurons_to_turn_off,
        sizes=neurons.sizes_of_neurons,
        require=neurons.require_share_of_neurons,
        calibrate=neurons.calibrate_neurons,
    ),
    "weights": Part(
        lacking=weights.without_weights_to_turn_off,
        sizes=weights.sizes_of_weights,
        require=weights.require_share_of_weights,
        calibrate=weights.calibrate_weights,
        shrinks=False,
    ),
}


def what_goes(shape: Shape) -> str:
    """What can be turned off in a model, and by which methods."""
    known: list[PartName] = [name for name, part in PARTS.items() if part.lacking(shape) is None]
    return "; ".join(f"{name}: {', '.join(methods_of(name))}" for name in known)
