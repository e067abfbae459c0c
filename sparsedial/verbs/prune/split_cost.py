"""`prune --split-experts --dry-run`: what dividing a dense checkpoint would cost, by a short trial."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from sparsedial.evaluation.pace import seconds_per_token
from sparsedial.evaluation.scorer import Scorer
from sparsedial.model.checkpoint import model_of
from sparsedial.pruning.speed import CALLS, least_seconds
from sparsedial.pruning.split_sizes import SplitSizes
from sparsedial.records.dry_run import PruneDryRun
from sparsedial.shape.counts import active_parameters, total_parameters
from sparsedial.showing.notes import note
from sparsedial.verbs.prune.cost import not_counted
from sparsedial.verbs.prune.prunable import SPLIT_MODELS, VALUE_BYTES
from sparsedial.verbs.prune.settings import PruneSettings
from sparsedial.verbs.prune.split_experts import dense_of
from sparsedial.verbs.prune.texts import texts

RIVALS = 2  # that are scored too: a random division, and as many neurons removed


def split_dry_run(settings: PruneSettings, sizes: SplitSizes) -> PruneDryRun:
    """What the settings would cost; all of the model stays.

    Raises: UserError as `split_experts` before it reads a weight.
    """
    dense = dense_of(settings.checkpoint, sizes)
    shape, left = dense.shape, sizes.shape(dense.shape)
    with contextlib.nullcontext() if settings.recover is None else tempfile.TemporaryDirectory() as home:
        read = texts(settings, shape, None if home is None else Path(home))
    note("trying how fast the model reads")
    per_token, _ = seconds_per_token(Scorer(model_of(shape, dense.tensors)), writing=False)
    scored, choices = sum(windows.tokens for windows in read.scored.values()), len(sizes.settings) + RIVALS
    routers = total_parameters(left) - total_parameters(shape)
    return PruneDryRun(
        total_parameters=total_parameters(shape),
        active_parameters=active_parameters(shape),
        keep=1.0,
        left_total_parameters=total_parameters(left),
        left_active_parameters=active_parameters(left),
        left_reason=None,
        choices=choices,
        search_steps=0,
        calibration_tokens=read.calibrating.tokens,
        scored_tokens=scored,
        seconds=per_token * (read.calibrating.tokens + scored * (1 + choices))
        + least_seconds((1 + len(sizes.settings)) * CALLS),
        not_counted=not_counted(settings),
        memory_bytes=SPLIT_MODELS * VALUE_BYTES * total_parameters(shape),
        memory_bytes_reason=None,
        disk_bytes=sum(tensor.nbytes for tensor in dense.tensors) + VALUE_BYTES * routers,
    )
