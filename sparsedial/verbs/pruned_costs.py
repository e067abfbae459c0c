"""The four costs that `prune` measures: of the original, of the smaller checkpoint, and of a random choice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sparsedial.model.router import Routing
from sparsedial.model.transformer import Transformer
from sparsedial.pruning.choice import Choice
from sparsedial.pruning.kept import Kept
from sparsedial.pruning.quality import mean_nats, nats_of
from sparsedial.pruning.removal import masks, without_experts
from sparsedial.pruning.speed import Place, speeds_of
from sparsedial.records.prune import CheckpointCosts
from sparsedial.records.quantities import Interval
from sparsedial.verbs.checkpoint_costs import costs_of
from sparsedial.verbs.pruned import Work


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What turning off did."""

    before: CheckpointCosts
    after: CheckpointCosts
    control: CheckpointCosts | None
    increases: dict[str, Interval]  # of the loss, by text
    over_control: Interval | None  # the loss on the calibration text above that of the random choices


def measured(work: Work, choice: Choice, model: Transformer, original: Path, folder: Path) -> Measured:
    """Measure a written checkpoint beside its original, and the mean loss of the random choices."""

    before, after = (nats_of(each, work.scored) for each in (work.model, model))
    speeds = speeds_of({original: work.model, folder: model}, Place)
    control = over_control = None
    if choice.controls:
        kept = [masks(each, work.shape) for each in choice.controls]
        at_random = mean_nats([nats_of(work.model, work.scored, Routing(kept=each)) for each in kept])
        first = choice.controls[0]
        control = costs_of(first.shape(work.shape), _bytes(work, first), at_random)
        over_control = after[work.calibrating.source].above(at_random[work.calibrating.source])
    return Measured(
        before=costs_of(work.shape, _bytes(work), before, original, speeds[original]),
        after=costs_of(model.shape, _bytes(work, choice.kept), after, folder, speeds[folder]),
        control=control,
        increases={name: nats.above(before[name]) for name, nats in after.items()},
        over_control=over_control,
    )


def _bytes(work: Work, kept: Kept | None = None) -> int:
    """Of the weights in their files' types, whole or with these experts alone."""

    tensors = work.tensors if kept is None else without_experts(work.tensors, kept)
    return sum(tensor.nbytes for tensor in tensors)
