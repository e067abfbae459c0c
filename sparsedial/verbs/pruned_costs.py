"""The four costs that `prune` measures: of the original, of the smaller checkpoint, and of a random choice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sparsedial.model.checkpoint import load, model_of
from sparsedial.pruning.kept import Choice, Kept
from sparsedial.pruning.quality import Nats, mean_nats, nats_of
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


def measured(work: Work, choice: Choice, original: Path, folder: Path) -> Measured:
    """Measure a written checkpoint beside its original, and the mean loss of the random choices."""

    at_random = mean_nats([_nats(work, kept) for kept in choice.controls]) if choice.controls else None
    model = load(folder)
    before, after = (nats_of(each, work.scored) for each in (work.model, model))
    speeds = speeds_of({original: work.model, folder: model}, Place)
    control = over_control = None
    if at_random is not None:
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


def _nats(work: Work, kept: Kept) -> dict[str, Nats]:
    """The loss of what stays by a choice, as a model in memory."""
    return nats_of(model_of(kept.shape(work.shape), kept.stream(work.tensors)), work.scored)


def _bytes(work: Work, kept: Kept | None = None) -> int:
    """Of the weights in their files' types, whole or of what stays."""

    tensors = work.tensors if kept is None else kept.stream(work.tensors)
    return sum(tensor.nbytes for tensor in tensors)
