"""How the rows of a matrix are laid out in files, and the change to our layout and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsedial.shape.rules import Layout
from sparsedial.shape.shape import Shape
from sparsedial.shape.tensors import Name

Change = Callable[[Tensor, int, int], Tensor]


@dataclass(frozen=True)
class Changes:
    """From a file's layout to ours and back, given the rows of a head and how many of its last ones are rotated."""

    read: Change
    written: Change


def halves_of_pairs(w_ON: Tensor, head: int, rotated: int) -> Tensor:
    """Rotated channels from neighbouring pairs to half a head apart. Shapes: [O, N] to [O, N]"""
    return _reordered(w_ON, head, rotated, (-1, 2))


def pairs_of_halves(w_ON: Tensor, head: int, rotated: int) -> Tensor:
    """The inverse of `halves_of_pairs`. Shapes: [O, N] to [O, N]"""
    return _reordered(w_ON, head, rotated, (2, -1))


def _reordered(w_ON: Tensor, head: int, rotated: int, axes: tuple[int, int]) -> Tensor:
    """The last `rotated` rows of every `head` rows, seen on two axes and written with these swapped."""
    heads = w_ON.unflatten(0, (-1, head))
    plain, last = heads.split([head - rotated, rotated], 1)
    swapped = last.unflatten(1, axes).transpose(1, 2).flatten(1, 2)
    return torch.cat([plain, swapped], 1).flatten(0, 1)


def halves_of_leading(w_ON: Tensor, head: int, rotated: int) -> Tensor:
    """Rotated channels from the first ones of a head to half a head apart; others fill the rest. Shapes: as above"""
    return w_ON.unflatten(0, (-1, head))[:, _leading(head, rotated)].flatten(0, 1)


def leading_of_halves(w_ON: Tensor, head: int, rotated: int) -> Tensor:
    """The inverse of `halves_of_leading`. Shapes: as above"""
    return w_ON.unflatten(0, (-1, head))[:, torch.argsort(_leading(head, rotated))].flatten(0, 1)


def _leading(head: int, rotated: int) -> Tensor:
    """Where each of our channels lies in a head whose rotated channels come first. Shapes: [C]"""
    one, two, others = torch.arange(head).split([rotated // 2, rotated // 2, head - rotated])
    before, after = others.split([(head - rotated) // 2, (head - rotated) // 2])
    return torch.cat([one, before, two, after])


def as_read(values: Tensor, layout: Layout, name: Name, shape: Shape) -> Tensor:
    """The values of a file's tensor in our layout."""
    return LAYOUTS[layout].read(values, *_rotated(name, shape))


def as_written(values: Tensor, layout: Layout, name: Name, shape: Shape) -> Tensor:
    """Our values in a file's layout."""
    return LAYOUTS[layout].written(values, *_rotated(name, shape))


def _rotated(name: Name, shape: Shape) -> tuple[int, int]:
    """Rows of a head, and how many of its last ones are rotated; a latent has one head, its key."""
    latent = name.part == "attention.latent"
    return shape.kv_lora_rank + shape.rope_head_dim if latent else shape.head_dim, shape.rotary_dim


def _same(values: Tensor, head: int, rotated: int) -> Tensor:
    return values


LAYOUTS: dict[Layout, Changes] = {
    "plain": Changes(read=_same, written=_same),
    "leading": Changes(read=halves_of_leading, written=leading_of_halves),
    "pairs": Changes(read=halves_of_pairs, written=pairs_of_halves),
}
