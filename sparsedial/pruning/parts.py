"""The parts that can be turned off: what a model must have, which shares it allows, and how a choice is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from sparsedial.model.transformer import Transformer
from sparsedial.pruning import choosing_experts as experts
from sparsedial.pruning import layers, neurons, weights
from sparsedial.pruning.kept import Choice
from sparsedial.pruning.methods import Ask, PartName, methods_of
from sparsedial.shape.shape import Shape


@dataclass(frozen=True, kw_only=True)
class Part:
    """One kind of part."""

    lacking: Callable[[Shape], str | None]  # why nothing of it can be turned off in a model
    require: Callable[[Shape, Ask], None]  # refuses what no scores can help, before a weight is read
    choose: Callable[[Transformer, Tensor, Ask], Choice]  # by a calibration [W, S+1]
    shrinks: bool = True  # else zeros are stored, and nothing gets smaller or faster


PARTS: Mapping[PartName, Part] = {
    "experts": Part(
        lacking=experts.without_experts_to_turn_off,
        require=experts.require_share_of_experts,
        choose=experts.choose_experts,
    ),
    "layers": Part(
        lacking=layers.without_layers_to_turn_off,
        require=layers.require_share_of_layers,
        choose=layers.choose_layers,
    ),
    "neurons": Part(
        lacking=neurons.without_neurons_to_turn_off,
        require=neurons.require_share_of_neurons,
        choose=neurons.choose_neurons,
    ),
    "weights": Part(
        lacking=weights.without_weights_to_turn_off,
        require=weights.require_share_of_weights,
        choose=weights.choose_weights,
        shrinks=False,
    ),
}


def what_goes(shape: Shape) -> str:
    """What can be turned off in a model, and by which methods."""
    known: list[PartName] = [name for name, part in PARTS.items() if part.lacking(shape) is None]
    return "; ".join(f"{name}: {', '.join(methods_of(name))}" for name in known)
