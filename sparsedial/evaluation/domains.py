"""Loss of a model on the domains of a text, with intervals over documents. T scored tokens of a text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from sparsedial.evaluation.loss import TokenLosses, bits_per_byte, counting_scorer, token_losses, worst_load
from sparsedial.evaluation.statistics import ratio_interval
from sparsedial.model.transformer import Transformer
from sparsedial.records.domains import DomainLoss
from sparsedial.records.quantities import Load
from sparsedial.text.domains import Domains
from sparsedial.text.prepare import Text
from sparsedial.text.windows import scored_bytes

Over = Literal["documents", "windows"]  # what is drawn again for an interval
SPLIT = "test"  # that a text is in as a whole
FEWEST = 6  # documents of an interval over them: drawn again, fewer are too often the same ones


@dataclass(frozen=True)
class Units:
    """Sums over each of the parts of a text that are drawn again for an interval."""

    nats: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray

    @staticmethod
    def joined(units: Sequence[Units]) -> Units:
        """Those of several texts."""
        return Units(*(np.concatenate([getattr(one, name) for one in units]) for name in ("nats", "tokens", "bytes")))

    def loss(self, total: float, over: Over) -> DomainLoss:
        """The loss on all of them, `total` nats, with intervals over them; `over` names what they are."""
        tokens, size = int(self.tokens.sum()), int(self.bytes.sum())
        return DomainLoss(
            loss=total / tokens,
            bits_per_byte=bits_per_byte(total, size),
            tokens=tokens,
            bytes=size,
            loss_interval=ratio_interval(self.nats, self.tokens),
            bits_per_byte_interval=ratio_interval(self.nats / math.log(2), self.bytes),
            interval_over=over,
        )


@dataclass(frozen=True, kw_only=True)
class DomainLosses:
    """A model's loss on a text and on each domain of it."""

    total: DomainLoss
    domains: Mapping[str, DomainLoss] | None  # None for a text without domains
    expert_load: Load | None  # the worst layer's, on all tokens that were read; None for a dense model
    units: Units  # of the whole text: its documents, or the windows of a single one


def evaluate_domains(model: Transformer, domains: Domains, *, context: int, stride: int | None = None) -> DomainLosses:
    """Score every token of each domain once, in windows of the context that move by the stride [the context].

    Windows do not cross from one domain into another, so a domain scores as it would alone.

    Raises: UserError for a stride outside 1..context.
    """
    scorer = counting_scorer(model)
    scored = {
        name: _Scored(text, token_losses(scorer, text, SPLIT, context=context, stride=stride))
        for name, text in domains.texts.items()
    }
    every = [*scored.values()]
    units, over = _drawn(every, context, FEWEST)
    return DomainLosses(
        total=units.loss(sum(one.losses.total for one in scored.values()), over),
        domains={name: _loss(one, context) for name, one in scored.items()} if domains.split else None,
        expert_load=worst_load(model),
        units=_drawn(every, context, 2)[0],
    )


@dataclass(frozen=True)
class _Scored:
    """A text and the losses of its tokens."""

    text: Text
    losses: TokenLosses

    @cached_property
    def documents(self) -> Units:
        """Its documents; parts of one document, and files of one name, are one."""
        rows = self.text.manifest.select("first_token", "group").collect()
        parts = self._units(rows["first_token"].to_numpy() - 1)
        groups = np.unique(rows["group"].to_numpy(), return_inverse=True)[1]
        return Units(*(np.bincount(groups, weights=values) for values in (parts.nats, parts.tokens, parts.bytes)))

    def over_windows(self, context: int) -> Units:
        """As many tokens at a time as a window has."""
        return self._units(np.arange(0, len(self.losses.nats_T), context))

    def _units(self, starts: np.ndarray) -> Units:
        """What begins at these of the scored tokens."""
        return Units(
            nats=np.add.reduceat(self.losses.nats_T, starts, dtype=np.float64),
            tokens=np.diff(starts, append=len(self.losses.nats_T)),
            bytes=np.add.reduceat(scored_bytes(self.text, SPLIT), starts, dtype=np.int64),
        )


def _drawn(scored: Sequence[_Scored], context: int, fewest: int) -> tuple[Units, Over]:
    """Documents, or windows where there are fewer documents than that."""
    units = Units.joined([one.documents for one in scored])
    if len(units.nats) < fewest:
        return Units.joined([one.over_windows(context) for one in scored]), "windows"
    return units, "documents"


def _loss(scored: _Scored, context: int) -> DomainLoss:
    units, over = _drawn([scored], context, FEWEST)
    return units.loss(scored.losses.total, over)
