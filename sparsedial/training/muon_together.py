"""Muon's steps on a GPU, matrices of one size together, because one by one their launches take longer than their
arithmetic: equal parameters are stacked, and the matrices of all stacks that have one size take one series of products.

N parameters of one size, M and N the rows and columns of a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

MOST_VALUES = 2**26  # stacked at once: each stack and each series needs a few copies of itself
Lying = tuple[Tensor, tuple[int, ...]]  # a parameter, and the columns of the matrices side by side in it


@dataclass(frozen=True)
class Constants:
    """What is the same for all parameters of a step."""

    rate: float | Tensor
    decay: float
    momentum: float
    scale: float  # of an update, over the root of a matrix's longer side


def step_together(
    held: Sequence[Lying],
    momentum_of: Callable[[Tensor], Tensor],
    constants: Constants,
    orthogonal: Callable[[Tensor], Tensor],
    found_inf: Tensor,
    gradient_scale: Tensor,
) -> None:
    """One step of parameters with gradients, which are divided by a scale; nothing changes where `found_inf` is 1.

    Equals `Muon._step_one` of each.
    """
    finite = found_inf == 0
    for batch in _batches(held):
        stacks = [_ahead(stack, momentum_of, constants, finite, gradient_scale) for stack in batch]
        parts = [part for stack, ahead in zip(batch, stacks, strict=True) for part in ahead.split(stack[0][1], -1)]
        updates = iter(_orthogonal_together(parts, orthogonal))
        for stack in batch:
            _move(stack, list(islice(updates, len(stack[0][1]))), constants, finite)


def _batches(held: Sequence[Lying]) -> Iterator[list[list[Lying]]]:
    """Stacks of parameters of one size, as many at a time as may be held."""
    sizes: dict[object, list[Lying]] = {}
    for parameter, widths in held:
        sizes.setdefault((parameter.shape, widths), []).append((parameter, widths))
    batch: list[list[Lying]] = []
    values = 0
    for alike in sizes.values():
        each = alike[0][0].numel()
        most = max(1, MOST_VALUES // each)
        for stack in (alike[first : first + most] for first in range(0, len(alike), most)):
            if batch and values + each * len(stack) > MOST_VALUES:
                yield batch
                batch, values = [], 0
            batch.append(stack)
            values += each * len(stack)
    if batch:
        yield batch


def _ahead(
    stack: list[Lying],
    momentum_of: Callable[[Tensor], Tensor],
    constants: Constants,
    finite: Tensor,
    gradient_scale: Tensor,
) -> Tensor:
    """Nesterov's momentum of stacked parameters, after theirs has taken the gradient. Shapes: [N, ..., M, N]"""
    momenta = [momentum_of(parameter) for parameter, _ in stack]
    gradients = torch.stack([parameter.grad for parameter, _ in stack])  # pyright: ignore[reportArgumentType]
    gradients = torch.where(finite, gradients / gradient_scale, 0.0)
    new = torch.stack(momenta).lerp_(gradients, torch.where(finite, 1 - constants.momentum, 0.0))
    torch._foreach_copy_(momenta, new.unbind())  # pyright: ignore[reportPrivateImportUsage]
    return gradients.lerp_(new, constants.momentum)


def _orthogonal_together(parts: Sequence[Tensor], orthogonal: Callable[[Tensor], Tensor]) -> Iterable[Tensor]:
    """What `orthogonal` gives of each; matrices of one size, turned if need be, go through it together."""
    wide = [part.mT if part.shape[-2] > part.shape[-1] else part for part in parts]
    sizes: dict[torch.Size, list[int]] = {}
    for index, part in enumerate(wide):
        sizes.setdefault(part.shape[-2:], []).append(index)
    found: dict[int, Tensor] = {}
    for size, alike in sizes.items():
        matrices = [wide[index].reshape(-1, *size) for index in alike]
        series = orthogonal(torch.cat(matrices)).split([len(each) for each in matrices])
        for index, updates in zip(alike, series, strict=True):
            update = updates.view(wide[index].shape)
            found[index] = update if wide[index] is parts[index] else update.mT
    return [found[index] for index in range(len(parts))]


def _move(stack: list[Lying], updates: Sequence[Tensor], constants: Constants, finite: Tensor) -> None:
    """Weight decay, and the updates of the matrices that lie side by side."""
    parameters = [parameter for parameter, _ in stack]
    # in the parameters' type: with a number of another one CUDA multiplies them one by one, not in one launch
    kept = torch.where(finite, 1 - constants.rate * constants.decay, 1.0).to(parameters[0].dtype)
    steps = [
        update * torch.where(finite, constants.rate * (constants.scale * math.sqrt(max(update.shape[-2:]))), 0.0)
        for update in updates
    ]
    torch._foreach_mul_(parameters, kept)  # pyright: ignore[reportPrivateImportUsage]
    whole = torch.cat(steps, -1) if len(steps) > 1 else steps[0]
    torch._foreach_sub_(parameters, whole.unbind())  # pyright: ignore[reportPrivateImportUsage]
