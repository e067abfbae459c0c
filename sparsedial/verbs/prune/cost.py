"""`prune --dry-run`: what a choice or a comparison would cost, by a short trial. Nothing is written."""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from sparsedial.evaluation.pace import seconds_per_token
from sparsedial.evaluation.scorer import Scorer
from sparsedial.pruning.methods import DRAWS, Ask, PartName
from sparsedial.pruning.parts import PARTS
from sparsedial.pruning.sizing import require_size, shares_of, weight_bytes
from sparsedial.pruning.speed import CALLS, least_seconds
from sparsedial.records.dry_run import PruneDryRun
from sparsedial.shape.counts import active_parameters, total_parameters
from sparsedial.showing.notes import note
from sparsedial.verbs.prune.choice import Work, opened
from sparsedial.verbs.prune.compare_settings import asks_of, in_words_of_a_comparison
from sparsedial.verbs.prune.prunable import memory_for
from sparsedial.verbs.prune.settings import PruneSettings

MOST_TRIED = 1  # windows of the calibration that are tried
COMPARED = "a comparison keeps no checkpoint"
BY_CHOICE = "it depends on which layers go"
BY_SEARCH = "shares are tried until one keeps the target"
FAR = "one layer at a time is in memory"


def dry_run(settings: PruneSettings) -> PruneDryRun:
    """What the settings would cost.

    Raises: UserError as `prune` before it reads a weight.
    """
    with contextlib.ExitStack() as opened_here:
        if settings.compare:
            opened_here.enter_context(in_words_of_a_comparison())
        asks = asks_of(settings) if settings.compare else (settings.ask,)
        home = settings.recover is not None and opened_here.enter_context(tempfile.TemporaryDirectory())
        work = opened(settings, asks, Path(home) if home else None)
        note("trying how fast the model reads")
        return _cost(work, settings, asks)


def _cost(work: Work, settings: PruneSettings, asks: Sequence[Ask]) -> PruneDryRun:
    keep, reason = (None, COMPARED) if settings.compare else _share(work)
    kept = None if keep is None else work.part.require(work.shape, replace(work.ask, keep=keep))
    left = None if kept is None else kept.shape(work.shape)
    scored = sum(windows.tokens for windows in work.scored.values())
    choices = 1 + len(work.ask.controls)
    if settings.compare:
        choices = sum(DRAWS if ask.how.drawn else 1 for ask in asks)
    steps = 0 if settings.compare or not work.target.how.searched else _steps(work)
    read = scored * (1 + choices) + steps * work.scored[work.calibrating.source].tokens
    per_token, _ = seconds_per_token(Scorer(work.model), writing=False)
    return PruneDryRun(
        total_parameters=total_parameters(work.shape),
        active_parameters=active_parameters(work.shape),
        keep=keep,
        left_total_parameters=left and total_parameters(left),
        left_active_parameters=left and active_parameters(left),
        left_reason=reason,
        choices=choices,
        search_steps=steps,
        calibration_tokens=work.calibrating.tokens,
        scored_tokens=scored,
        seconds=_calibrating(work, asks, per_token) + read * per_token + _timing(work, asks, steps),
        not_counted=not_counted(settings),
        memory_bytes=None if work.far else memory_for(work.shape, asks, work.target),
        memory_bytes_reason=FAR if work.far else None,
        disk_bytes=None if kept is None else weight_bytes(work.tensors, kept),
    )


def _share(work: Work) -> tuple[float | None, str | None]:
    """The share that stays, or why it is not known before the model has read anything."""
    if work.target.kind == "keep":
        keep = work.target.asked
        mixed = work.ask.how.part == "layers" and len(work.shape.kinds) > 1
        return (None, BY_CHOICE) if mixed else (keep, None)
    if work.target.how.searched:
        return None, BY_SEARCH
    keep = require_size(work.target, work.shape, work.tensors, work.ask)
    return keep, BY_CHOICE if keep is None else None


def _steps(work: Work) -> int:
    """Shares that a search by halves tries."""
    return math.ceil(math.log2(len(shares_of(work.shape, work.ask)) + 1))


def _calibrating(work: Work, asks: Sequence[Ask], per_token: float) -> float:
    """Seconds to calibrate each part once, and behind cut layers for each choice, where every layer runs twice."""
    tokens, seconds = work.calibrating.tokens, 0.0
    ids = torch.from_numpy(work.calibrating.ids_WS1[:MOST_TRIED])
    parts: dict[PartName, None] = dict.fromkeys(ask.how.part for ask in asks)
    for part in parts:
        own = [ask for ask in asks if ask.how.part == part]
        in_turn = sum(ask.in_turn for ask in own)
        seconds += in_turn * 2 * tokens * per_token
        at_once = [ask for ask in own if not ask.in_turn and not ask.how.drawn]
        if at_once:
            began = time.perf_counter()
            PARTS[part].calibrate(work.model, ids, at_once, None)
            tried = (time.perf_counter() - began) / (len(ids) * work.calibrating.context)
            seconds += tokens * max(per_token, tried)
    return seconds


def _timing(work: Work, asks: Sequence[Ask], steps: int) -> float:
    """The least seconds that speeds take: of two models reading and writing; of a comparison each size that writes."""
    if work.far:
        return 0.0
    searched = steps if work.target.kind == "speed" else 0
    calls = CALLS * (2 + searched) if len(asks) == 1 else 1 + len(asks)
    return least_seconds(calls)


def not_counted(settings: PruneSettings) -> tuple[str, ...]:
    """What takes time beside what is counted."""
    more = {
        "a recovery (`train --dry-run`)": settings.recover is not None,
        "tasks (`evaluate --tasks --dry-run`)": bool(settings.tasks),
        "the study's text of --against": settings.against is not None,
        "writing the folder": not settings.compare,
        "the processes that measure memory": not settings.compare and not settings.layer_by_layer,
    }
    return ("choosing what goes by its scores", *(name for name, asked in more.items() if asked))
