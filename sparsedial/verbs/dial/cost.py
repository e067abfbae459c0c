"""`dial --measure --dry-run`: what measuring settings would cost, by a short trial."""

from __future__ import annotations

from pathlib import Path

from sparsedial.evaluation.pace import seconds_per_token
from sparsedial.evaluation.scorer import Scorer
from sparsedial.model.checkpoint import model_of
from sparsedial.model.reading import read_checkpoint
from sparsedial.pruning.speed import CALLS, least_seconds
from sparsedial.records.dry_run import DialDryRun
from sparsedial.shape.counts import active_parameters, total_parameters
from sparsedial.showing.notes import note
from sparsedial.verbs.dial.measured import asked_turned
from sparsedial.verbs.dial.settings import DialSettings
from sparsedial.verbs.dial.texts import dial_texts
from sparsedial.verbs.origin import require_checkpoint
from sparsedial.verbs.prune.prunable import VALUE_BYTES

NOT_COUNTED = ("the processes that measure memory",)


def dry_run(settings: DialSettings) -> DialDryRun:
    """What measuring would cost, by a short trial; nothing is written.

    Raises: UserError as `dial`.
    """
    folder = Path(settings.law)
    require_checkpoint(folder)
    checkpoint = read_checkpoint(folder)
    shape, turned = checkpoint.shape, asked_turned(folder, checkpoint.shape, settings.settings)
    texts = dial_texts(folder, shape, settings, gated=any(setting.neurons != 1 for setting in turned))
    note("trying how fast the model reads")
    per_token, _ = seconds_per_token(Scorer(model_of(shape, checkpoint.tensors)), writing=False)
    calibrating = 0 if texts.calibrating is None else texts.calibrating.tokens
    return DialDryRun(
        total_parameters=total_parameters(shape),
        active_parameters=active_parameters(shape),
        settings=tuple(setting.name(shape) for setting in turned),
        calibration_tokens=calibrating,
        scored_tokens=texts.scored.tokens,
        seconds=per_token * (calibrating + len(turned) * texts.scored.tokens) + least_seconds(len(turned) * CALLS),
        not_counted=NOT_COUNTED,
        memory_bytes=VALUE_BYTES * total_parameters(shape, with_mtp=True),
    )
