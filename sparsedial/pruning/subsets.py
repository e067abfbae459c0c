"""Experts of a layer chosen together: those with which it writes what is nearest to what the whole layer writes.

T tokens, E experts, K chosen, D d_model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import chain, combinations, product

import torch
from torch import Tensor

from sparsedial.kernels.reference import swiglu
from sparsedial.model.far import held
from sparsedial.model.router import route
from sparsedial.model.transformer import Block, SparseFeedForward, Transformer
from sparsedial.pruning.experts import KeptExperts
from sparsedial.pruning.scores import Reached
from sparsedial.shape.shape import Shape

EXHAUSTIVE = 8  # experts of a layer; beyond, subsets are too many to try
TOKENS, OUTPUT_BYTES = 4096, 1 << 28  # that a layer is compared on, at most, and of all experts' outputs for them
VALUE_BYTES = 4


def tokens_compared(shape: Shape) -> int:
    """The tokens of a calibration on which the layers of a model are compared, at most."""
    return max(1, min(TOKENS, OUTPUT_BYTES // (VALUE_BYTES * shape.experts * shape.d_model)))


@torch.no_grad()
def keep_nearest(model: Transformer, reached: Mapping[int, Reached], counts: Mapping[int, int]) -> KeptExperts:
    """So many experts of each layer, equally many of each group, whose output is nearest to the whole layer's.

    The distance is Euclidean, over the tokens whose inputs a calibration of the whole model held. Of up to 8 experts
    every subset is tried; of more, those go one by one whose going adds the least distance.

    Source: Not All Experts are Equal, arXiv 2402.14800, layer-wise pruning; one by one is ours, for more than 8 experts
    """
    blocks = model.every_block
    return KeptExperts(
        {
            number: _of_layer(blocks[number], seen, counts[number], model.shape.expert_groups)
            for number, seen in reached.items()
        }
    )


def _of_layer(block: Block, seen: Reached, count: int, groups: int) -> tuple[int, ...]:
    with held(block):
        assert isinstance(block.feed_forward, SparseFeedForward)
        return _nearest(LayerOutput(block.feed_forward, torch.from_numpy(seen.inputs_TD)), count, groups)


class LayerOutput:
    """What the routed experts of a layer write for some tokens, with any of them off."""

    def __init__(self, layer: SparseFeedForward, x_TD: Tensor) -> None:
        """`x_TD`: what the experts read, normed."""
        x_TD = x_TD.to(layer.w_in_EDH)
        self._layer, self.experts = layer, len(layer.w_in_EDH)
        self._logits_TE = x_TD.float() @ layer.w_router_DE.float()
        weights = zip(layer.w_in_EDH, layer.w_out_EFD, strict=True)
        self._outputs_TED = torch.stack([swiglu(x_TD, *of_one) for of_one in weights], 1)
        self._whole_TD = self._of(range(self.experts))

    def _of(self, on: Collection[int]) -> Tensor:
        """With these experts on. Shapes: to [T, D]"""
        layer = self._layer
        kept_E = torch.zeros(self.experts, dtype=torch.bool, device=self._logits_TE.device)
        kept_E[list(on)] = True
        chosen_TK, gates_TK, _, _ = route(
            self._logits_TE, layer.bias_E, layer.shape, layer.sizes.top_k, 1, kept_E=kept_E
        )
        return (self._outputs_TED.take_along_dim(chosen_TK[:, :, None], 1) * gates_TK[:, :, None]).sum(1)

    def error(self, on: Collection[int]) -> float:
        """The squared distance to the whole layer with these experts on, summed over the tokens."""
        return float((self._of(on) - self._whole_TD).double().square().sum())


def _nearest(output: LayerOutput, count: int, groups: int) -> tuple[int, ...]:
    if output.experts <= EXHAUSTIVE:
        return min(subsets(output.experts, count, groups), key=output.error)
    return _one_by_one(output, count, groups)


def subsets(experts: int, count: int, groups: int) -> Iterator[tuple[int, ...]]:
    """Every choice of so many experts, equally many of each group; rising."""
    of_group = experts // groups
    firsts = range(0, experts, of_group)
    each = [combinations(range(first, first + of_group), count // groups) for first in firsts]
    return (tuple(chain(*parts)) for parts in product(*each))


def _one_by_one(output: LayerOutput, count: int, groups: int) -> tuple[int, ...]:
    """What is left of all experts; no group loses its next one before each has lost as many."""
    on, of_group = set(range(output.experts)), output.experts // groups
    while len(on) > count:
        sizes = Counter(expert // of_group for expert in on)
        free = [expert for expert in sorted(on) if sizes[expert // of_group] == max(sizes.values())]
        on.remove(min(free, key=lambda expert: output.error(on - {expert})))
    return tuple(sorted(on))
