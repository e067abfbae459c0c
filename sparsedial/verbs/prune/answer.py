"""The answer of `prune`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from sparsedial.machine.hardware import peak_process_bytes
from sparsedial.pruning.kept import Choice
from sparsedial.pruning.quality import foreign, no_better, parted, too_few
from sparsedial.pruning.recovery import Recovered
from sparsedial.pruning.sizing import file_bytes, weight_bytes
from sparsedial.pruning.windows import Windows
from sparsedial.records.prune import (
    SCORES_FILE,
    CalibrationText,
    CheckpointCosts,
    Pruned,
    PrunedFolder,
    PruneTarget,
)
from sparsedial.shape.config import OWN
from sparsedial.showing.numbers import rate_words
from sparsedial.verbs.checkpoint_names import name_of, unchanged
from sparsedial.verbs.prune.choice import Work
from sparsedial.verbs.prune.costs import Measured
from sparsedial.verbs.prune.reached import reached_of, said_of
from sparsedial.verbs.prune.settings import PruneSettings


def answered(
    work: Work,
    choice: Choice,
    costs: Measured,
    folder: Path,
    settings: PruneSettings,
    began: float,
    trained: Recovered | None,
) -> Pruned:
    """Say what was done and what it did, of a checkpoint that was written to a folder and measured."""
    ask, share = work.ask, choice.kept.share(work.shape)
    target = reached_of(work, share, costs)
    return Pruned(
        checkpoint=unchanged(work.name),
        out=written_folder(folder, settings.out),
        part=ask.how.part,
        method=ask.method,
        budget=ask.budget,
        sequential=ask.in_turn,
        pattern=ask.pattern,
        target=target,
        keep=share,
        kept=choice.kept.parts(work.shape),
        scores=SCORES_FILE,
        unscored_experts=choice.unscored,
        calibration=calibration_of(work.calibrating),
        second_domain=work.second.record,
        second_domain_reason=work.second.reason,
        before=costs.before,
        after=costs.after,
        control=costs.control,
        control_draws=len(choice.controls),
        control_reason=None if costs.control else "the choice itself is random",
        loss_increase=costs.increases,
        search=choice.search,
        recovery=trained and trained.record(costs.nats),
        warnings=tuple(_warnings_of(work, choice, target, costs, trained)),
        wall_seconds=time.perf_counter() - began,
        peak_process_bytes=peak_process_bytes(),
    )


def written_folder(folder: Path, shown: Path) -> PrunedFolder:
    """The smaller checkpoint, and which programs read it."""
    name = name_of(folder, shown)
    read_by = ("sparsedial",) if name.family == OWN else ("transformers", "sparsedial")
    return PrunedFolder(path=name.path, digest=name.digest, family=name.family, read_by=read_by)


def calibration_of(used: Windows) -> CalibrationText:
    """The text that the scores come from."""
    return CalibrationText(
        source=used.source,
        digest=used.digest,
        tokens=used.tokens,
        windows=len(used.ids_WS1),
        context_tokens=used.context,
    )


def _warnings_of(
    work: Work, choice: Choice, target: PruneTarget, costs: Measured, trained: Recovered | None
) -> Iterator[str]:
    """What there is reason to say."""
    part = work.ask.how.part
    yield from said_of(work, target, costs)
    yield from choice.notes
    if not work.part.shrinks:
        yield not_gained(costs.before, costs.after)
    if file_bytes(work.tensors) < weight_bytes(work.tensors):
        yield "the weights lie in 8-bit blocks, and what stays is written in bfloat16: twice the bytes of a weight"
    if work.again:
        yield "the calibration text is one window, so loss is measured on the window that decided what stays"
    if work.second.reason:
        yield f"{work.second.reason}: what the calibration text does not show may have suffered unseen"
    over = costs.over_control
    windows = {name: len(text.ids_WS1) for name, text in work.scored.items()}
    name = work.calibrating.source
    few = too_few(windows[name])
    found = (
        foreign(name, costs.before.loss[name].loss, work.shape),
        parted(costs.increases, windows),
        None if work.again else few,
        None if over is None or few else no_better(name, over, part),
    )
    yield from (words for words in found if words)
    if not work.far and None in (costs.before.peak_memory_bytes, costs.after.peak_memory_bytes):
        why = costs.before.peak_memory_bytes_reason or costs.after.peak_memory_bytes_reason
        yield f"how much memory a process takes is not known: {why}"
    if trained is not None:
        yield from trained.warnings("the random choices" if costs.control else None)


def not_gained(before: CheckpointCosts, after: CheckpointCosts) -> str:
    """What to say of weights that are zero and stored all the same."""
    words = "what is off is stored as zeros, so the checkpoint is no smaller and no faster"
    rates = before.decode_tokens_per_second, after.decode_tokens_per_second
    if rates[0] is None or rates[1] is None:
        return words
    timed = f"{rate_words(rates[0])} tokens a second before, {rate_words(rates[1])} after"
    return f"{words}; what differs in {timed} is the scatter of timings"
