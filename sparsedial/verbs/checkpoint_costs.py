"""The four costs of a checkpoint: quality, speed, memory and energy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sparsedial.pruning.quality import Nats
from sparsedial.pruning.speed import Speed
from sparsedial.records.dial_file import DIAL_FILE, GATES_FILE
from sparsedial.records.evaluation import TaskScore
from sparsedial.records.prune import PRUNE_FILE, SCORES_FILE, CheckpointCosts
from sparsedial.records.quantities import Sparsity
from sparsedial.shape.counts import active_parameters, total_parameters
from sparsedial.shape.shape import Shape

NOT_WRITTEN = "random choices were scored in memory, and not written"
SAME_SHAPE = "of the same shape as the smaller checkpoint, so not measured again"
SAME_WEIGHTS = "measured at the default setting alone: every setting holds the same weights"
SAID = (PRUNE_FILE, SCORES_FILE, DIAL_FILE, GATES_FILE)  # they say something of a checkpoint, and are no part of it


def costs_of(
    shape: Shape,
    weight_bytes: int,
    loss: Mapping[str, Nats],
    folder: Path | None = None,
    speed: Speed | None = None,
    tasks: dict[str, TaskScore] | None = None,
    why_no_speed: str = SAME_SHAPE,
    neurons: float = 1.0,
) -> CheckpointCosts:
    """The costs of a checkpoint in a folder; without one, of a random choice. `neurons` as for `active_parameters`."""
    unmeasured, memory = (why_no_speed, None) if speed is None else (None, speed.peak_memory_bytes)
    why_no_peak = unmeasured or (speed and speed.why_no_peak) or (SAME_WEIGHTS if memory is None else None)
    return CheckpointCosts(
        total_parameters=total_parameters(shape),
        active_parameters=active_parameters(shape, neurons=neurons),
        sparsity=Sparsity.of(shape, neurons),
        weight_bytes=weight_bytes,
        disk_bytes=None if folder is None else _folder_bytes(folder),
        disk_bytes_reason=NOT_WRITTEN if folder is None else None,
        loss={name: nats.record for name, nats in loss.items()},
        tasks=tasks,
        prefill_tokens_per_second=speed and speed.prefill,
        prefill_tokens_per_second_reason=unmeasured,
        decode_tokens_per_second=speed and speed.decode,
        decode_tokens_per_second_reason=unmeasured,
        peak_memory_bytes=memory,
        peak_memory_bytes_reason=why_no_peak,
        joules_per_token=speed and speed.joules_per_token,
        joules_per_token_reason=unmeasured,
    )


def _folder_bytes(folder: Path) -> int:
    """Bytes of the files of a checkpoint, without what is said of it."""
    files = [file for file in folder.iterdir() if file.is_file() and file.name not in SAID]
    return sum(file.stat().st_size for file in files)
