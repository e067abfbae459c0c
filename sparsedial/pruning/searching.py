"""Targets that must be measured: shares are tried, by bisection, for the one that keeps what is asked for."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sparsedial.errors import UserError
from sparsedial.model.checkpoint import model_of
from sparsedial.model.stream import NamedTensor
from sparsedial.model.transformer import Transformer
from sparsedial.pruning.kept import Choice, ShareChooser
from sparsedial.pruning.quality import Nats, nats_of
from sparsedial.pruning.speed import times_as_fast
from sparsedial.pruning.target import Target
from sparsedial.pruning.windows import Windows
from sparsedial.records.prune import SearchStep

MOST_SHARES = 100  # that a search chooses from: steps of a hundredth are finer than what is measured
Report = Callable[[SearchStep, float], None]  # gets a step, and what it is judged by


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """The search for a share, and what it has tried."""

    target: Target
    model: Transformer
    tensors: Sequence[NamedTensor]  # of the model
    text: Windows  # that the loss is measured on
    report: Report
    tried: dict[float, tuple[Choice, SearchStep]] = field(default_factory=dict)  # by what was asked for, in order

    def choice(self, shares: Sequence[float], choose: ShareChooser) -> Choice:
        """The smallest of rising shares that keeps the loss, or the largest that is fast enough, as medians say.

        The fewer stay, the faster a model is taken to be and the higher its loss.

        Raises: UserError where no share keeps the target; it names the nearest.
        """
        found, before = _spread(shares), self._nats(self.model)
        if self.target.kind == "speed":
            found = found[::-1]
        place = bisect_left(found, True, key=lambda keep: self._keeps(choose(keep), keep, before))
        steps = tuple(step for _, step in self.tried.values())
        if place == len(found):
            raise self._refusal(steps, before)
        choice, _ = self.tried[found[place]]
        return replace(choice, search=steps)

    def _keeps(self, choice: Choice, keep: float, before: Nats) -> bool:
        shape, kept = self.model.shape, choice.kept
        smaller = model_of(kept.shape(shape), kept.stream(self.tensors))
        step = SearchStep(
            keep=kept.share(shape),
            loss_increase=self._nats(smaller).above(before),
            speed=times_as_fast(self.model, smaller) if self.target.kind == "speed" else None,
        )
        self.tried[keep] = choice, step
        reached = self._reached(step, before)
        self.report(step, reached)
        return reached >= self.target.asked if self.target.kind == "speed" else reached <= self.target.asked

    def _nats(self, model: Transformer) -> Nats:
        (nats,) = nats_of(model, {self.text.source: self.text}).values()
        return nats

    def _reached(self, step: SearchStep, before: Nats) -> float:
        """What a step is judged by: the speed, or the growth of the loss as a share of it."""
        return step.loss_increase.mean / before.mean if step.speed is None else step.speed

    def _refusal(self, steps: Sequence[SearchStep], before: Nats) -> UserError:
        pick, limit = (max, "reaches") if self.target.kind == "speed" else (min, "keeps within")
        step = pick(steps, key=lambda step: self._reached(step, before))
        how = self.target.how
        return UserError(
            f"no share {limit} {self.target.words}: the nearest is {how.words(self._reached(step, before))}, where"
            f" {step.keep:.4g} stays",
            hint=f"<keep> {step.keep:.4g} takes it as it is",
            field=how.field,
        )


def _spread(shares: Sequence[float]) -> list[float]:
    """At most so many of the shares, evenly spread, with both ends."""
    places = np.linspace(0, len(shares) - 1, min(len(shares), MOST_SHARES)).round().astype(int)
    return [shares[place] for place in places]
