"""How files name and lay out the tensors of a model: rules, applied to the tensors of one Shape.

A rule renames. It may also cut a tensor of a file into several of ours along its rows, take experts out of a stack, and
say how rows are laid out. Only names and sizes are known here; `model/` moves the values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

from sparsedial.shape.shape import Shape
from sparsedial.shape.tensors import Name, Size, layer_parts, model_parts

# "plain": channels that are rotated together lie half a head apart, as ours do. "pairs": they are neighbours.
# "leading": they lie in the two halves of a head's first channels; the others are not rotated.
Layout = Literal["plain", "pairs", "leading"]
MISSING = "missing "  # before the name of a tensor that no file has


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One kind of tensor in files, and the parts of ours that it holds."""

    theirs: str  # its name, with {layer} and {expert}
    ours: tuple[str, ...]  # the parts whose rows follow each other in it
    stacked: bool = False  # a first axis counts the routed experts of a layer
    layout: Layout = "plain"
    switch: str = ""  # a field of config.json; where it is false, the layout is plain

    @property
    def writes(self) -> bool:
        """Whether tensors are written by this rule. Rules for fused tensors are for reading only."""
        return len(self.ours) == 1 and not self.stacked


@dataclass(frozen=True)
class Piece:
    """Where one of our tensors lies in a tensor of a file."""

    name: Name
    rows: tuple[int, int]  # the first, and one past the last
    expert: int | None = None  # its number in a stack


@dataclass(frozen=True)
class Expected:
    """A tensor that files of a Shape may hold."""

    size: Size
    pieces: tuple[Piece, ...]
    layout: Layout


@dataclass(frozen=True)
class Written:
    """How a tensor of ours is written."""

    theirs: str
    layout: Layout


def expected_tensors(rules: Sequence[Rule], shape: Shape) -> dict[str, Expected]:
    """Every tensor that files of a Shape may hold, by its name there; rules for parts that it lacks give none."""
    found: dict[str, Expected] = {}
    for layer in (None, *range(shape.layers + shape.mtp_layers)):
        parts = model_parts(shape) if layer is None else layer_parts(shape, layer)
        experts = 0 if layer is None else shape.layer(layer).experts
        for rule in rules:
            if all(part in parts for part in rule.ours):
                found |= _of_layer(rule, layer, [parts[part] for part in rule.ours], experts)
    return found


def _of_layer(rule: Rule, layer: int | None, sizes: Sequence[Size], experts: int) -> Iterator[tuple[str, Expected]]:
    """A rule's tensors in one layer, where its parts have these sizes."""
    cuts = list(pairwise(accumulate((size[0] for size in sizes), initial=0)))
    whole = (cuts[-1][1], *sizes[0][1:])

    def pieces(expert: int | None, number: int | None = None) -> tuple[Piece, ...]:
        return tuple(Piece(Name(part, layer, expert), cut, number) for part, cut in zip(rule.ours, cuts, strict=True))

    if rule.stacked:
        every = tuple(piece for expert in range(experts) for piece in pieces(expert, expert))
        yield rule.theirs.format(layer=layer), Expected((experts, *whole), every, rule.layout)
        return
    for expert in range(experts) if "{expert}" in rule.theirs else (None,):
        yield rule.theirs.format(layer=layer, expert=expert), Expected(whole, pieces(expert), rule.layout)


def written_tensors(rules: Iterable[Rule], shape: Shape) -> dict[Name, Written]:
    """How each tensor of a Shape is written: by the first rule that holds only this tensor."""
    found: dict[Name, Written] = {}
    for theirs, tensor in expected_tensors([rule for rule in rules if rule.writes], shape).items():
        found.setdefault(tensor.pieces[0].name, Written(theirs, tensor.layout))
    return found


def misfits(
    expected: Mapping[str, Expected],
    wanted: Mapping[Name, Written],
    found: Mapping[str, Size],
    ignored: Collection[str],
) -> list[str]:
    """Tensors that are missing, unexpected, wrongly shaped or repeated, judged by the names and sizes in files.

    Names in `ignored` may be there.
    """
    holders: dict[Name, str] = {}
    faults: list[str] = []
    for theirs, size in found.items():
        tensor = expected.get(theirs)
        if tensor is None:
            faults += [] if theirs in ignored else [f"unexpected {theirs}"]
            continue
        if size != tensor.size:
            faults.append(f"{theirs} is {list(size)} instead of {list(tensor.size)}")
        others = {holders.setdefault(piece.name, theirs) for piece in tensor.pieces} - {theirs}
        faults += [f"{theirs} holds again what {other} holds" for other in sorted(others)[:1]]
    return [f"{MISSING}{written.theirs}" for name, written in wanted.items() if name not in holders] + faults
