"""The four costs that `prune` measures: of the original, of the smaller checkpoint, and of a random choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sparsedial.model.router import Routing
from sparsedial.model.transformer import Transformer
from sparsedial.pruning.choice import Choice
from sparsedial.pruning.kept import Kept
from sparsedial.pruning.quality import Nats, mean_nats, nats_of
from sparsedial.pruning.removal import masks, without_experts
from sparsedial.pruning.speed import Speed, speeds_of
from sparsedial.records.prune import PRUNE_FILE, SCORES_FILE, CheckpointCosts
from sparsedial.records.quantities import Interval, Sparsity
from sparsedial.shape.counts import active_parameters, total_parameters
from sparsedial.shape.shape import Shape
from sparsedial.verbs.pruned import Work

NOT_WRITTEN = "random choices were scored as masks on the original, and not written"
SAME_SHAPE = "of the same shape as the smaller checkpoint, so not measured again"


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
    speeds = speeds_of({original: work.model, folder: model})
    control = over_control = None
    if choice.controls:
        kept = [masks(each, work.shape) for each in choice.controls]
        at_random = mean_nats([nats_of(work.model, work.scored, Routing(kept=each)) for each in kept])
        first = choice.controls[0]
        control = _costs(first.shape(work.shape), _bytes(work, first), at_random)
        over_control = after[work.calibrating.source].above(at_random[work.calibrating.source])
    return Measured(
        before=_costs(work.shape, _bytes(work), before, original, speeds[original]),
        after=_costs(model.shape, _bytes(work, choice.kept), after, folder, speeds[folder]),
        control=control,
        increases={name: nats.above(before[name]) for name, nats in after.items()},
        over_control=over_control,
    )


def _bytes(work: Work, kept: Kept | None = None) -> int:
    """Of the weights in their files' types, whole or with these experts alone."""

    tensors = work.tensors if kept is None else without_experts(work.tensors, kept)
    return sum(tensor.nbytes for tensor in tensors)


def _costs(
    shape: Shape,
    weight_bytes: int,
    loss: Mapping[str, Nats],
    folder: Path | None = None,
    speed: Speed | None = None,
) -> CheckpointCosts:
    """The costs of a checkpoint in a folder; without one, of a random choice."""
    unmeasured = SAME_SHAPE if speed is None else None
    return CheckpointCosts(
        total_parameters=total_parameters(shape),
        active_parameters=active_parameters(shape),
        sparsity=Sparsity.of(shape),
        weight_bytes=weight_bytes,
        disk_bytes=None if folder is None else _folder_bytes(folder),
        disk_bytes_reason=NOT_WRITTEN if folder is None else None,
        loss={name: nats.record for name, nats in loss.items()},
        tasks=None,
        prefill_tokens_per_second=speed and speed.prefill,
        prefill_tokens_per_second_reason=unmeasured,
        decode_tokens_per_second=speed and speed.decode,
        decode_tokens_per_second_reason=unmeasured,
        peak_memory_bytes=speed and speed.peak_memory_bytes,
        peak_memory_bytes_reason=unmeasured,
        joules_per_token=speed and speed.joules_per_token,
        joules_per_token_reason=unmeasured,
    )


def _folder_bytes(folder: Path) -> int:
    """Bytes of the files of a checkpoint, without what `prune` says of it."""
    files = [file for file in folder.iterdir() if file.is_file() and file.name not in (PRUNE_FILE, SCORES_FILE)]
    return sum(file.stat().st_size for file in files)
