"""What the files of a folder hold of a Shape: tensors under their usual names, and what the configuration says wrongly.

Wrappers put a prefix before every name, a saved base model lacks one, a tied model may have a head of its own, and
modules of multi-token prediction may be there unasked or be asked for and not be there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from sparsedial.errors import UserError
from sparsedial.shape.hugging_face.files import Entry, entries_of, same_values
from sparsedial.shape.hugging_face.names import EMBEDDING, HEAD, PREDICTION, repeated_names
from sparsedial.shape.rules import Rule, expected_tensors
from sparsedial.shape.shape import Shape

WRAPPERS = {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}  # of torch.compile, DDP, FSDP
BODIES = {"model", "language_model"}  # before a name they say only where the decoder lies
SCALE = "_scale_inv"  # after the name of an 8-bit weight: the factors of its blocks
LAYER = re.compile(r"layers\.(\d+)\.(.+)")
MODULE_PARTS = {rule.theirs.rpartition("{layer}.")[2] for rule in PREDICTION}

E = TypeVar("E", bound=Entry)


@dataclass(frozen=True, kw_only=True)
class Held(Generic[E]):
    """The Shape that files hold, and their tensors by their usual names."""

    shape: Shape
    tensors: Mapping[str, E]


def held(shape: Shape, rules: Sequence[Rule], entries: Mapping[str, E]) -> Held[E]:
    """What files hold of the Shape that their configuration describes.

    Raises: UserError where two of their names mean one tensor.
    """
    usual = {*expected_tensors(rules, shape), *repeated_names(shape)}
    found = _by_usual_name(entries, usual)
    found = _without_modules_beyond(found, shape.layers + shape.mtp_layers)
    if shape.mtp_layers and not _holds_modules(rules, shape, found):
        shape = replace(shape, mtp_layers=0)
    if shape.tied_embeddings and HEAD in found:
        if EMBEDDING not in found:
            found[EMBEDDING] = found.pop(HEAD)
        elif not same_values(found[EMBEDDING], found[HEAD]):
            shape = replace(shape, tied_embeddings=False)
    return Held(shape=shape, tensors=found)


def shape_beside_weights(shape: Shape, rules: Sequence[Rule], folder: Path) -> Shape:
    """The Shape of a folder's configuration, untied where its files hold a head of their own.

    Files that are missing or damaged change nothing: counting needs none.
    """
    if not shape.tied_embeddings:
        return shape
    try:
        found = held(shape, rules, entries_of(folder)).shape
    except UserError:
        return shape
    return replace(shape, tied_embeddings=found.tied_embeddings)


def _by_usual_name(entries: Mapping[str, E], usual: Collection[str]) -> dict[str, E]:
    names = usual_names(entries, usual)
    found: dict[str, E] = {}
    for name, entry in entries.items():
        other = found.setdefault(names[name], entry)
        if other is not entry:
            files = " and ".join(dict.fromkeys(str(one.file) for one in (other, entry)))
            raise UserError(f"{files}: {other.name} and {name} are names of one tensor")
    return found


def usual_names(names: Iterable[str], usual: Collection[str]) -> dict[str, str]:
    """For each name in a file its usual one, where there is one; prefixes and wrappers make no difference."""
    by_bare = {bare(name): name for name in usual}
    found: dict[str, str] = {}
    for name in names:
        stem, end = (name.removesuffix(SCALE), SCALE) if name.endswith(SCALE) else (name, "")
        found[name] = name if stem in usual else by_bare[bare(stem)] + end if bare(stem) in by_bare else name
    return found


def bare(name: str) -> str:
    """A name without wrappers and the decoder's prefix."""
    parts = [part for part in name.split(".") if part not in WRAPPERS]
    while parts[1:] and parts[0] in BODIES:
        del parts[0]
    return ".".join(parts)


def _without_modules_beyond(found: Mapping[str, E], layers: int) -> dict[str, E]:
    """Without modules of multi-token prediction that were not asked for, as `transformers` leaves them out."""
    places = {name: match for name in found if (match := LAYER.fullmatch(bare(name)))}
    modules = {int(match[1]) for match in places.values() if int(match[1]) >= layers and match[2] in MODULE_PARTS}
    return {name: entry for name, entry in found.items() if name not in places or int(places[name][1]) not in modules}


def _holds_modules(rules: Sequence[Rule], shape: Shape, found: Mapping[str, E]) -> bool:
    """Whether there is any tensor of multi-token prediction."""
    names = (rule.theirs.format(layer=shape.layers, expert=0) for rule in rules if "{layer}" in rule.theirs)
    return any(name in found for name in names)
