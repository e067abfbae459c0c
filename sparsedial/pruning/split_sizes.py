"""Into how many experts the neurons of dense layers are divided. Nothing here needs torch."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparsedial.errors import UserError
from sparsedial.shape.shape import Layer, Shape, with_layers

SHARED = 4  # by default one in so many neurons is in the shared part
SHARES = (0.8, 0.6)  # of the neurons, that a token visits at the settings which are measured beside those asked for
NAMED = 6  # numbers of experts that a hint names


@dataclass(frozen=True, kw_only=True)
class SplitSizes:
    """Equal experts of each layer, and a shared part as wide as several of them.

    Raises: UserError for numbers that no layer can have.
    """

    experts: int  # routed ones
    always: int  # width of the shared part, in experts
    top_k: int  # routed experts that a token visits unless a setting says otherwise

    def __post_init__(self) -> None:
        if self.experts < 2:
            raise UserError(f"{self.experts} is below 2", field="split_experts")
        if self.always < 0:
            raise UserError(f"{self.always} is below 0", field="always")
        if not 1 <= self.top_k <= self.experts:
            raise UserError(f"{self.top_k} lies outside 1..{self.experts}, the experts of a layer", field="top_k")

    @staticmethod
    def of(experts: int, always: int | None, top_k: int | None) -> SplitSizes:
        """By default a quarter of the neurons is shared, and a token visits all experts, which is the dense model.

        Raises: UserError for numbers that no layer can have.
        """
        shared = round(experts / (SHARED - 1)) if always is None else always
        return SplitSizes(experts=experts, always=shared, top_k=experts if top_k is None else top_k)

    @property
    def parts(self) -> int:
        """Experts of a layer, with those that the shared part is as wide as."""
        return self.experts + self.always

    def share(self, top_k: int) -> float:
        """The share of the neurons that a token with so many experts visits."""
        return (top_k + self.always) / self.parts

    @property
    def settings(self) -> tuple[int, ...]:
        """Numbers of experts that are measured, all of them first: for some shares of the neurons, and the default."""
        some = {min(max(1, round(share * self.parts) - self.always), self.experts) for share in SHARES}
        return tuple(sorted({self.experts, self.top_k, *some}, reverse=True))

    @property
    def compared(self) -> int:
        """The number that rivals are measured at: the one that is asked for, else the lowest of the settings.

        With all experts on each division is the dense model.
        """
        return self.top_k if self.top_k < self.experts else self.settings[-1]

    def require_fits(self, shape: Shape) -> None:
        """Check that the widths of a dense model can be divided so.

        Raises: UserError that names numbers of experts which fit.
        """
        widths = sorted({layer.d_ff for layer, _ in shape.kinds})
        if all(width % self.parts == 0 for width in widths):
            return
        words = " and ".join(map(str, widths))
        fit = fitting(math.gcd(*widths), self.always)
        near = sorted(sorted(fit, key=lambda count: abs(count - self.experts))[:NAMED])
        named = f"with <always> {self.always} these numbers of experts fit: {', '.join(map(str, near))}"
        raise UserError(
            f"{self.experts} experts and a shared part of {self.always} do not divide the {words} neurons of a layer",
            hint=named if near else f"choose another <always>: no number of experts fits {self.always}",
            field="split_experts",
        )

    def shape(self, shape: Shape) -> Shape:
        """The split model of a dense one whose widths fit."""
        layers = [self._layer(shape.layer(number)) for number in range(shape.layers)]
        split = with_layers(shape, layers)
        return replace(split, shared_experts=self.always, gate="ones", normalize_gates=False)

    def _layer(self, layer: Layer) -> Layer:
        return Layer(experts=self.experts, top_k=self.top_k, d_expert=layer.d_ff // self.parts)


def numbers_by_layer(growths: Sequence[Sequence[float]], mean: int) -> tuple[int, ...]:
    """How many experts a token visits in each layer, so many in the mean, for the least growth of the loss.

    `growths` says by layer how much the loss grows with 0, 1, 2 … experts; one expert stays at least. Experts go one by
    one, each time where that costs least.
    """
    numbers = [len(growth) - 1 for growth in growths]

    def cost(layer: int) -> tuple[float, int]:
        number = numbers[layer]
        return growths[layer][number - 1] - growths[layer][number], layer

    going = [cost(layer) for layer in range(len(growths))]
    heapq.heapify(going)
    for _ in range(sum(numbers) - mean * len(growths)):
        _, layer = heapq.heappop(going)
        numbers[layer] -= 1
        if numbers[layer] > 1:
            heapq.heappush(going, cost(layer))
    return tuple(numbers)


def fitting(width: int, always: int) -> list[int]:
    """The numbers of experts, two at least, that divide a width together with a shared part of so many of them."""
    return [parts - always for parts in range(always + 2, width + 1) if width % parts == 0]


def not_to_split(shape: Shape) -> str | None:
    """Why a model cannot be split."""
    if shape.experts:
        return "has experts already: only a dense checkpoint can be split"
    if shape.mtp_layers:
        return "has modules of multi-token prediction, which cannot be split"
    return None


def joined_shape(shape: Shape) -> Shape:
    """The dense model of a split one."""
    layers = [shape.layer(number) for number in range(shape.layers)]
    dense = [Layer(d_ff=(layer.experts + shape.shared_experts) * layer.d_expert) for layer in layers]
    return with_layers(replace(shape, gate="softmax", normalize_gates=True, top_p=1.0), dense)
