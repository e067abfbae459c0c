"""How far the dial of a checkpoint is turned: fewer or more experts per token, a share of their weight, a share of the
neurons of dense layers, layers skipped.

All but neurons is a change of a Shape: the same gate and the same normalising over another number of experts, as
`transformers` computes where `num_experts_per_tok` is edited. Which neurons take part no Shape says: that is measured.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from sparsedial.errors import UserError
from sparsedial.shape.shape import Layer, Shape, with_layers

ALL = ("all",)  # the settings that a checkpoint was measured at, or the usual ones
DEFAULT = "default"  # the setting of a checkpoint as it was trained
SHARES = (0.7, 0.5, 0.35)  # of the neurons of dense layers, that are looked at unless others are named
LEAST_SHARE = 0.02
WRITTEN = "write it like k=2, k=4/2/2 (one number for each sparse layer), p=0.5, neurons=0.5, skip=3+7 or k=2,skip=3"
PART = re.compile(r"k=\d+(/\d+)*|(p|neurons)=(\d+\.?\d*|\.\d+)|skip=\d+(\+\d+)*")


@dataclass(frozen=True, kw_only=True)
class Turned:
    """What a setting changes of a checkpoint; by default nothing."""

    top_k: tuple[int, ...] = ()  # experts that a token visits: one number for all sparse layers, or one for each
    top_p: float | None = None  # a token keeps the fewest of them whose weights reach this share
    neurons: float = 1.0  # share of the neurons of each dense layer that take part for a token, on average
    skip: tuple[int, ...] = ()  # layers that are left out, counted from 0

    def kept(self, shape: Shape) -> tuple[int, ...]:
        """The layers that stay.

        Raises: UserError for a layer that does not exist, or where no layer would stay.
        """
        beyond = [layer for layer in self.skip if layer >= shape.layers]
        if beyond:
            raise UserError(f"there is no layer {beyond[0]} to skip: the checkpoint has layers 0 to {shape.layers - 1}")
        kept = tuple(layer for layer in range(shape.layers) if layer not in self.skip)
        if self.skip and not any(shape.is_sparse(layer) or not shape.experts for layer in kept):
            what = "sparse layer" if shape.experts else "layer"
            raise UserError(f"skip={'+'.join(map(str, self.skip))} leaves no {what}")
        return kept

    def counts(self, shape: Shape) -> dict[int, int]:
        """How many experts a token visits in each sparse layer, skipped ones included.

        Raises: UserError where that is none or more than there are, or the numbers are not one for each layer.
        """
        sparse = [layer for layer in range(shape.layers) if shape.is_sparse(layer)]
        if not self.top_k:
            return {layer: shape.layer(layer).top_k for layer in sparse}
        asked = f"k={'/'.join(map(str, self.top_k))}"
        if not sparse:
            raise UserError(
                f"{asked}, but the checkpoint is dense: it has no experts to choose from",
                hint="it can have neurons=0.5 or skip=3",
            )
        if len(self.top_k) not in (1, len(sparse)):
            raise UserError(f"{asked} has {len(self.top_k)} numbers, and the checkpoint {len(sparse)} sparse layers")
        counts = dict(zip(sparse, self.top_k * (len(sparse) if len(self.top_k) == 1 else 1), strict=True))
        for layer, count in counts.items():
            most = _choices(shape, shape.layer(layer))
            if not 1 <= count <= most:
                groups = f" in the {shape.kept_groups} groups of a token" if shape.expert_groups > 1 else ""
                raise UserError(f"k={count} lies outside 1..{most}: layer {layer} has {most} experts{groups}")
        return counts

    def shape(self, shape: Shape) -> Shape:
        """The model at this setting. Modules of multi-token prediction visit as many experts as the largest layer.

        Raises: UserError for a setting that the checkpoint cannot have.
        """
        if self == Turned():
            return shape
        kept, counts = self.kept(shape), self.counts(shape)
        layers = [replace(shape.layer(at), top_k=counts[at]) if at in counts else shape.layer(at) for at in kept]
        full = sum(layer < shape.full_layers for layer in kept)
        turned = with_layers(replace(shape, full_layers=full), layers)
        if self.top_p is not None:
            self._require_share(shape)
            turned = replace(turned, top_p=self.top_p)
        if self.neurons != 1:
            self._require_neurons(turned)
        if _module(turned) != _module(shape):
            raise UserError(
                f"skip={'+'.join(map(str, self.skip))} leaves no layer of the size of the checkpoint's multi-token"
                " prediction"
            )
        return turned

    def _require_share(self, shape: Shape) -> None:
        if not shape.experts:
            raise UserError(f"p={self.top_p:g}, but the checkpoint is dense: it has no experts to choose from")
        if not 0 < (self.top_p or 0) <= 1:
            raise UserError(f"p={self.top_p:g} is not above 0 and at most 1", hint="p=1 keeps all that a token chooses")

    def _require_neurons(self, turned: Shape) -> None:
        """Check the share of neurons, for a Shape that is turned otherwise."""
        if not LEAST_SHARE <= self.neurons <= 1:
            raise UserError(f"neurons={self.neurons:g} lies outside {LEAST_SHARE:g}..1", hint="neurons=1 keeps all")
        if all(turned.is_sparse(layer) for layer in range(turned.layers)):
            raise UserError(
                f"neurons={self.neurons:g}, but every layer has experts: there is no dense one",
                hint="it can have k=2 or skip=3",
            )

    def name(self, shape: Shape) -> str:
        """The setting in full, as it is written: equal settings of a checkpoint have equal names.

        Raises: UserError as `shape`.
        """
        at, counts = self.shape(shape), self.counts(shape)
        of_kept = {counts[layer] for layer in self.kept(shape) if layer in counts}
        listed = [next(iter(of_kept))] if len(of_kept) == 1 else list(counts.values())
        parts = [
            f"k={'/'.join(map(str, listed))}" if counts else "",
            f"p={_digits(at.top_p)}" if at.top_p < 1 or shape.top_p < 1 else "",
            f"neurons={_digits(self.neurons)}" if self.neurons != 1 else "",
            f"skip={'+'.join(map(str, sorted(set(self.skip))))}" if self.skip else "",
        ]
        return ",".join(filter(None, parts)) or DEFAULT


def _digits(share: float) -> str:
    """A share with all of its digits and no exponent, as `parse_turned` reads it."""
    return f"{Decimal(repr(share)).normalize():f}"


def _choices(shape: Shape, layer: Layer) -> int:
    """The most experts that a token can visit in a layer."""
    return layer.experts // shape.expert_groups * shape.kept_groups


def _module(shape: Shape) -> Layer | None:
    """The feed-forward part of a module of multi-token prediction, whatever it visits."""
    return replace(shape.layer(shape.layers), top_k=0) if shape.mtp_layers else None


def visits(shape: Shape) -> tuple[int, ...]:
    """How many experts a token visits in each layer, modules of multi-token prediction included; 1 in a dense one."""
    return tuple(max(1, shape.layer(layer).top_k) for layer in range(shape.layers + shape.mtp_layers))


def parse_turned(text: Any, field: str = "setting") -> Turned:
    """A setting from `k=2`, `k=4/2/2`, `p=0.5`, `neurons=0.5`, `skip=3+7`, several joined by commas, or `default`.

    Raises: UserError for anything else.
    """
    parts = [] if str(text).strip() == DEFAULT else [part.strip() for part in str(text).split(",")]
    for part in parts:
        if not PART.fullmatch(part):
            raise UserError(f"cannot read '{text}'", hint=WRITTEN, field=field)
    values = dict(part.split("=") for part in parts)
    if len(values) < len(parts):
        raise UserError(f"'{text}' gives one thing twice", hint=WRITTEN, field=field)
    return Turned(
        top_k=tuple(map(int, values["k"].split("/"))) if "k" in values else (),
        top_p=float(values["p"]) if "p" in values else None,
        neurons=float(values.get("neurons", 1.0)),
        skip=tuple(map(int, values["skip"].split("+"))) if "skip" in values else (),
    )


def setting_text(value: Any, field: str = "setting") -> str:
    """A setting as it was given, which can be read.

    Raises: UserError where it cannot.
    """
    parse_turned(value, field)
    return str(value)


def setting_texts(value: Any, field: str = "settings") -> tuple[str, ...]:
    """Several settings from a list, or a text with `;` between them, or the word `all`.

    Where a comma is followed by what the setting before it has already, it begins another: `k=1,k=2` are two.

    Raises: UserError for what is none.
    """
    items = value if isinstance(value, list | tuple) else str(value).split(";")
    texts = tuple(text for item in items for text in _apart(str(item)))
    return texts if texts == ALL else tuple(setting_text(text, field) for text in texts)


def _apart(text: str) -> list[str]:
    """`k=2,skip=3,k=1` as `k=2,skip=3` and `k=1`."""
    found: list[dict[str, str]] = []
    for part in text.split(","):
        kind = part.partition("=")[0].strip()
        if not found or kind in found[-1] or DEFAULT in (kind, *found[-1]):
            found.append({})
        found[-1][kind] = part
    return [",".join(parts.values()) for parts in found]


def series(shape: Shape, also: Sequence[int] = ()) -> tuple[Turned, ...]:
    """The settings of a checkpoint that are looked at unless others are named, the default first.

    As many experts as in training, half of them and so on to one, and these numbers too; a dense checkpoint has one.
    """
    least = Turned().counts(shape)
    if not least:
        return (Turned(),)
    most, numbers = min(_choices(shape, shape.layer(layer)) for layer in least), {shape.top_k}
    while min(numbers) > 1:
        numbers.add(min(numbers) // 2)
    lower = [
        tuple(number if number > shape.top_k else min(number, count) for count in least.values())
        for number in sorted({*numbers, *(count for count in also if 1 <= count <= most)}, reverse=True)
    ]
    return distinct((Turned(), *(Turned(top_k=counts) for counts in lower)), shape)


def distinct(settings: Sequence[Turned], shape: Shape) -> tuple[Turned, ...]:
    """The same without those that a setting before them equals.

    Raises: UserError for a setting that the checkpoint cannot have.
    """
    found: dict[str, Turned] = {}
    for setting in settings:
        found.setdefault(setting.name(shape), setting)
    return tuple(found.values())
