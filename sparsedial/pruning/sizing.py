"""Targets that the sizes of tensors decide: the largest share whose result is no larger than what is asked for."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from sparsedial.errors import UserError
from sparsedial.model.stream import NamedTensor
from sparsedial.pruning.kept import Choice, Kept, ShareChooser
from sparsedial.pruning.methods import Ask
from sparsedial.pruning.parts import PARTS
from sparsedial.pruning.target import Target
from sparsedial.shape.counts import active_parameters, total_parameters
from sparsedial.shape.shape import Shape

Size = Callable[[float], int]  # of what stays, by its share


def shares_of(shape: Shape, ask: Ask) -> list[float]:
    """A share for each result that a model allows, rising; `ask` says of which part, and how layers share.

    Raises: UserError where it allows none.
    """
    part = PARTS[ask.how.part]
    found = _passing(series(part.sizes(shape, ask)), lambda keep: part.require(shape, replace(ask, keep=keep)))
    if not found:
        part.require(shape, replace(ask, keep=0.5))  # says why
    return found


def series(sizes: Iterable[int]) -> list[float]:
    """A share for each way in which shares are rounded in parts of these numbers of things, all of them left out.

    A share is rounded to the nearest number, so that another result begins at each half.
    """
    halves = sorted({(count - 0.5) / size for size in set(sizes) for count in range(1, size + 1)})
    return [(one + next_one) / 2 for one, next_one in pairwise(halves)]


def _passing(shares: Sequence[float], check: Callable[[float], object]) -> list[float]:
    """The shares that pass a check; those that do not lie at the ends."""

    def passes(share: float) -> bool:
        try:
            check(share)
        except UserError:
            return False
        return True

    first = next((place for place, share in enumerate(shares) if passes(share)), len(shares))
    last = next((place for place in range(len(shares) - 1, first, -1) if passes(shares[place])), first)
    return list(shares[first : last + 1])


def weight_bytes(tensors: Iterable[NamedTensor], kept: Kept | None = None) -> int:
    """Of the weights in the types that they are written in, whole or of what stays."""
    return sum(tensor.nbytes for tensor in (tensors if kept is None else kept.stream(tensors)))


def file_bytes(tensors: Iterable[NamedTensor]) -> int:
    """Of the weights as they lie in their files: in 8-bit blocks they are written in a wider type."""
    return sum(tensor.file_bytes for tensor in tensors)


def size_of(target: Target, shape: Shape, tensors: Iterable[NamedTensor], kept: Kept | None = None) -> int:
    """What a target limits, of the whole model or of what stays."""
    if target.kind == "memory_bytes":
        return weight_bytes(tensors, kept)
    count = total_parameters if target.kind == "total_parameters" else active_parameters
    return count(shape if kept is None else kept.shape(shape))


def largest(target: Target, shares: Sequence[float], size: Size, whole: int) -> float:
    """The largest of rising shares whose result is no larger than the target.

    Raises: UserError for a target that the whole model keeps, or that no share reaches; both name the nearest.
    """
    falling, how = shares[::-1], target.how
    if target.asked >= whole:
        most = size(falling[0])
        raise UserError(
            f"at most {target.words} are asked for, and the model has {whole:,}; the nearest below is {most:,}",
            hint=f"<{how.field}> {most} or less turns something off",
            field=how.field,
        )
    place = bisect_left(falling, True, key=lambda keep: size(keep) <= target.asked)
    if place == len(falling):
        least = size(falling[-1])
        raise UserError(
            f"no share keeps at most {target.words}: the nearest is {least:,}",
            hint=f"<{how.field}> {least} is the least, or turn another part off with <method>",
            field=how.field,
        )
    return falling[place]


def require_size(target: Target, shape: Shape, tensors: Sequence[NamedTensor], ask: Ask) -> float | None:
    """The largest share that keeps a target where every choice of as much is as large; None where it depends on that.

    Nothing is read for it.

    Raises: UserError as `largest`.
    """
    shares = shares_of(shape, ask)
    if ask.how.part == "layers" and len(shape.kinds) > 1:
        return None
    require = PARTS[ask.how.part].require

    def size(keep: float) -> int:
        return size_of(target, shape, tensors, require(shape, replace(ask, keep=keep)))

    return largest(target, shares, size, size_of(target, shape, tensors))


def choose_by_size(
    target: Target, shape: Shape, tensors: Sequence[NamedTensor], ask: Ask, choose: ShareChooser
) -> Choice:
    """The choice of the largest share that keeps a target.

    Raises: UserError as `largest`.
    """
    keep = require_size(target, shape, tensors, ask)
    choice = None if keep is None else choose(keep)
    if choice is None or size_of(target, shape, tensors, choice.kept) > target.asked:

        def size(share: float) -> int:
            return size_of(target, shape, tensors, choose(share).kept)

        choice = choose(largest(target, shares_of(shape, ask), size, size_of(target, shape, tensors)))
    return choice
