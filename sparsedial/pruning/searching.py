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
from sparsedial.pruning.shelf import Shelf
from sparsedial.pruning.speed import timed_ids, times_as_fast
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
    shelf: Shelf  # where its steps are kept
    forget: Callable[[float], None]  # gets a share whose choice is not needed any more
    steps: dict[float, SearchStep] = field(default_factory=dict)  # by what was asked for, in order
    best: dict[float, Choice | None] = field(default_factory=dict)  # the last share that keeps the target; None: of old

    def choice(self, shares: Sequence[float], choose: ShareChooser) -> Choice:
        """The smallest of rising shares that keeps the loss, or the largest that is fast enough, as medians say.

        The fewer stay, the faster a model is taken to be and the higher its loss.

        Raises: UserError where no share keeps the target; it names the nearest.
        """
        found, before = _spread(shares), self._nats(self.model)
        if self.target.kind == "speed":
            found = found[::-1]
        place = bisect_left(found, True, key=lambda keep: self._keeps(keep, choose, before))
        steps = tuple(self.steps.values())
        if place == len(found):
            raise self._refusal(steps, before)
        return replace(self.best[found[place]] or choose(found[place]), search=steps)

    def _keeps(self, keep: float, choose: ShareChooser, before: Nats) -> bool:
        """Whether a share keeps the target; one that was tried before a stop is not tried again."""
        name, choice = f"share-{keep!r}", None
        step = self.shelf.read(name, SearchStep)
        if step is None:
            choice = choose(keep)
            step = self._tried(choice, before)
            self.shelf.write(name, step)
        self.steps[keep] = step
        reached = self._reached(step, before)
        self.report(step, reached)
        keeps = reached >= self.target.asked if self.target.kind == "speed" else reached <= self.target.asked
        for other in [*self.best] if keeps else [keep]:
            self.forget(other)
        if keeps:
            self.best.clear()
            self.best[keep] = choice
        return keeps

    def _tried(self, choice: Choice, before: Nats) -> SearchStep:
        shape, kept = self.model.shape, choice.kept
        smaller = model_of(kept.shape(shape), kept.stream(self.tensors))
        return SearchStep(
            keep=kept.share(shape),
            loss_increase=self._nats(smaller).above(before),
            speed=times_as_fast(self.model, smaller, timed_ids(self.text)) if self.target.kind == "speed" else None,
        )

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
