"""What `prune` reached of what was asked for, and what there is to say of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sparsedial.pruning.target import Target, percent
from sparsedial.records.evaluation import LEAST_UNITS
from sparsedial.records.prune import PruneTarget, TargetKind
from sparsedial.units import count_words
from sparsedial.verbs.prune.choice import Work
from sparsedial.verbs.prune.costs import Measured

ROUNDED = 0.005  # what is off by less needs no words


def reached_of(work: Work, share: float, costs: Measured) -> PruneTarget:
    """What was asked for, and what the smaller checkpoint is; `share` of the part stays."""
    before, after, text = costs.before, costs.after, work.calibrating.source
    reached: Mapping[TargetKind, float] = {
        "keep": share,
        "total_parameters": after.total_parameters,
        "active_parameters": after.active_parameters,
        "memory_bytes": after.weight_bytes,
        **({"speed": costs.times_as_fast} if work.target.kind == "speed" else {}),
        "max_loss_increase": costs.increases[text].mean / before.loss[text].loss,
    }
    target = work.target
    return PruneTarget(kind=target.kind, asked=target.asked, reached=reached[target.kind])


def said_of(work: Work, found: PruneTarget, costs: Measured) -> Iterator[str]:
    """What there is reason to say of what was reached."""
    target, reached = work.target, found.reached
    if target.kind == "keep":
        yield from rounding(work.ask.how.part, found)
    elif target.kind == "speed" and reached < target.asked:
        yield (
            f"{target.words} was found in the search, and {target.how.words(reached)} when both were measured at the"
            " end: speeds vary from one measurement to the next"
        )
    elif target.kind == "max_loss_increase":
        yield from _how_sure(work, target, reached, costs)
    elif not target.how.searched and reached < (1 - ROUNDED) * target.asked:
        yield f"{target.words} is no size that the model allows: the next below it is {reached:,.0f}"


def _how_sure(work: Work, target: Target, reached: float, costs: Measured) -> Iterator[str]:
    """What to say of a growth of the loss that is measured on few windows."""
    text = work.calibrating.source
    high, windows = costs.increases[text].high, len(work.scored[text].ids_WS1)
    if windows < LEAST_UNITS:
        yield f"the loss was measured on {count_words(windows, 'window')}, so how sure its growth is cannot be said"
    elif high is not None and high > target.asked * costs.before.loss[text].loss:
        share = percent(high / costs.before.loss[text].loss)
        yield (
            f"the loss grew by {percent(reached)}, and by {share} at the upper end of the 95 % interval: that it"
            f" keeps within {percent(target.asked)} is not sure"
        )


def rounding(part: str, target: PruneTarget) -> Iterator[str]:
    """What to say where the share that stays is far from what was asked for."""
    if abs(target.reached - target.asked) > ROUNDED:
        yield f"{target.asked:g} of the {part} is no number that the model allows: {target.reached:.4g} stays"
