"""Muon: momentum whose matrices are brought to singular values near one.

M and N are the rows and columns of a matrix, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from sparsedial.kernels import native
from sparsedial.kernels.bridge import array
from sparsedial.records.recipe import Recipe
from sparsedial.training.light import LightOptimizer
from sparsedial.training.muon_together import Constants, step_together

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # fast, not exact: singular values end up in 0.7 to 1.2
NEWTON_SCHULZ_STEPS = 5
MUON_MOMENTUM = 0.95
MUON_SCALE = 0.2  # root mean square of an update over the learning rate, as AdamW's, so that rates carry over


class Muon(LightOptimizer):
    """Momentum whose matrix is brought to singular values near one; each expert's matrix by itself.

    Matrices that lie side by side in one parameter (queries, keys and values; gate and up) are separated first:
    `widths` gives their columns. It is not part of the groups, which a checkpoint stores.

    Source: Jordan et al. 2024 (kellerjordan.github.io/posts/muon); scale and weight decay, Liu et al. 2025
    (arXiv 2502.16982)
    """

    def __init__(self, groups: list[dict[str, Any]], widths: Mapping[Tensor, tuple[int, ...]], recipe: Recipe) -> None:
        super().__init__(groups, {"lr": recipe.learning_rate})
        self._widths = widths
        self.found_inf: Tensor | None = None  # 1 where a step must change nothing, else 0; as PyTorch's scaler sets it
        self.grad_scale: Tensor | None = None  # what gradients are divided by

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        threads = torch.get_num_threads()
        for group in self.param_groups:
            held = [(parameter, self._widths[parameter]) for parameter in group["params"] if parameter.grad is not None]
            sizes = tuple((parameter.shape, widths) for parameter, widths in held)
            compiles = self.found_inf is None and _parallel(sizes) >= threads
            if compiles and native.usable(*(parameter for parameter, _ in held)):
                self._step_compiled([parameter for parameter, _ in held], _table(sizes), group, threads)
            elif self.found_inf is not None and self.grad_scale is not None:
                constants = Constants(group["lr"], group["weight_decay"], MUON_MOMENTUM, MUON_SCALE)
                step_together(held, self._momentum, constants, orthogonal, self.found_inf, self.grad_scale)
            else:  # each matrix by all threads
                for parameter, widths in held:
                    self._step_one(parameter, widths, group)

    def _step_compiled(self, held: list[Tensor], places: Any, group: dict[str, Any], threads: int) -> None:
        first, third, fifth = NEWTON_SCHULZ
        native.module.muon(
            parameters=held,
            gradients=[parameter.grad.contiguous() for parameter in held],  # pyright: ignore[reportOptionalMemberAccess]
            momenta=[self._momentum(parameter) for parameter in held],
            places=places,
            count=len(places),
            rate=group["lr"],
            decay=group["weight_decay"],
            momentum=MUON_MOMENTUM,
            scale=MUON_SCALE,
            first=first,
            third=third,
            fifth=fifth,
            iterations=NEWTON_SCHULZ_STEPS,
            threads=threads,
        )

    def _step_one(self, parameter: Tensor, widths: tuple[int, ...], group: dict[str, Any]) -> None:
        gradient = parameter.grad
        assert gradient is not None
        momentum = self._momentum(parameter).lerp_(gradient, 1 - MUON_MOMENTUM)
        ahead = gradient.lerp(momentum, MUON_MOMENTUM)  # Nesterov's
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        for part, moved in zip(ahead.split(widths, -1), parameter.split(widths, -1), strict=True):
            scale = MUON_SCALE * math.sqrt(max(part.shape[-2:]))
            moved.sub_(orthogonal(part), alpha=group["lr"] * scale)

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        return state["momentum"]


@dataclass(frozen=True)
class Place:
    """Where a matrix lies: from the value `first` of a parameter on, rows of `width` values, `length` apart."""

    parameter: int
    first: int
    height: int
    width: int
    length: int

    @property
    def cost(self) -> int:
        """Multiplications of the matrix's iteration, up to a constant factor."""
        return self.height * self.width * min(self.height, self.width)


Sizes = tuple[tuple[torch.Size, tuple[int, ...]], ...]  # each parameter's, and the columns of its matrices


@cache
def _places(parameters: Sizes) -> list[Place]:
    """Where the matrices of parameters lie, the costliest first."""
    places = []
    for index, (shape, widths) in enumerate(parameters):
        rows, length = shape[-2:]
        for expert in range(math.prod(shape[:-2])):
            firsts = accumulate(widths, initial=expert * rows * length)
            places += [Place(index, first, rows, width, length) for first, width in zip(firsts, widths, strict=False)]
    return sorted(places, key=lambda place: place.cost, reverse=True)


def multiplications(shape: torch.Size, widths: tuple[int, ...]) -> int:
    """Those of one parameter's iteration, up to a constant factor."""
    return sum(place.cost for place in _places(((shape, widths),)))


@cache
def _parallel(parameters: Sizes) -> float:
    """How many threads can work while one takes the costliest matrix."""
    costs = [place.cost for place in _places(parameters)]
    return sum(costs) / costs[0] if costs else 0.0


@cache
def _table(parameters: Sizes) -> Any:
    """The places as the kernel takes them."""
    return array([native.module.muon_place(**asdict(place)) for place in _places(parameters)])


def orthogonal(x_MN: Tensor) -> Tensor:
    """A matrix with the singular vectors of `x` and singular values near one, by Newton and Schulz's iteration.

    Shapes: [..., M, N] to [..., M, N]
    """
    wide = x_MN.mT if x_MN.shape[-2] > x_MN.shape[-1] else x_MN
    y = wide.bfloat16() if wide.is_cuda else wide
    y = y / (y.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = NEWTON_SCHULZ
    if wide.is_cuda and wide.dim() == 3:  # the same in three launches an iteration instead of seven
        for _ in range(NEWTON_SCHULZ_STEPS):
            square = y @ y.mT
            y = torch.baddbmm(y, torch.baddbmm(square, square, square, beta=b, alpha=c), y, beta=a)
    else:
        for _ in range(NEWTON_SCHULZ_STEPS):
            square = y @ y.mT
            y = a * y + (b * square + c * square @ square) @ y
    return (y.mT if wide is not x_MN else y).to(x_MN.dtype)
