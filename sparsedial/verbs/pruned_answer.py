"""The answer of `prune`."""

from __future__ import annotations

import time
from pathlib import Path

from sparsedial.machine.hardware import peak_process_bytes
from sparsedial.model.digests import digest_of
from sparsedial.model.transformer import Transformer
from sparsedial.pruning.choice import Choice
from sparsedial.pruning.quality import no_better, parted
from sparsedial.records.evaluation import CheckpointName
from sparsedial.records.prune import (
    SCORES_FILE,
    CalibrationText,
    KeptParts,
    Pruned,
    PrunedFolder,
    PruneTarget,
    SecondDomain,
)
from sparsedial.shape.config import OWN, load_config
from sparsedial.units import count_words
from sparsedial.verbs.prune_settings import PruneSettings
from sparsedial.verbs.pruned import Work
from sparsedial.verbs.pruned_costs import measured


def answered(
    work: Work, choice: Choice, model: Transformer, folder: Path, settings: PruneSettings, began: float
) -> Pruned:
    """Measure the checkpoint that was written to a folder, and say what was done and what it did."""

    costs, target = measured(work, choice, model, settings.checkpoint, folder), _target_of(choice, settings)
    over = costs.over_control
    found = (parted(costs.increases), None if over is None else no_better(work.calibrating.source, over))
    return Pruned(
        checkpoint=checkpoint_name(settings.checkpoint, settings.checkpoint),
        out=written_folder(folder, settings.out),
        method=settings.method,
        budget=settings.budget,
        sequential=settings.sequential,
        target=target,
        kept=KeptParts(
            experts=tuple(choice.kept.experts.values()),
            layers=tuple(range(work.shape.layers)),
            d_ff=None,
            weights_share=None,
        ),
        scores=SCORES_FILE,
        unscored_experts=choice.unscored,
        calibration=_calibration_of(work),
        second_domain=_second_of(work),
        second_domain_reason=None if work.second else "no second text was given",
        before=costs.before,
        after=costs.after,
        control=costs.control,
        control_draws=len(choice.controls),
        control_reason=None if costs.control else "the choice itself is random",
        loss_increase=costs.increases,
        search=None,
        recovery=None,
        warnings=(*_warnings_of(work, choice, target), *(words for words in found if words)),
        wall_seconds=time.perf_counter() - began,
        peak_process_bytes=peak_process_bytes(),
    )


def written_folder(folder: Path, shown: Path) -> PrunedFolder:
    """The smaller checkpoint, and which programs read it."""
    name = checkpoint_name(folder, shown)
    read_by = ("sparsedial",) if name.family == OWN else ("transformers", "sparsedial")
    return PrunedFolder(path=name.path, digest=name.digest, family=name.family, read_by=read_by)


def checkpoint_name(folder: Path, shown: Path) -> CheckpointName:
    """What names a checkpoint in an answer; `shown` is the path that it has, or will have."""

    family = str(load_config(folder).get("model_type"))
    return CheckpointName(path=str(shown), digest=digest_of(folder), family=family)


def _target_of(choice: Choice, settings: PruneSettings) -> PruneTarget:
    """The share that was asked for, and the one that the router allowed."""
    kept = sum(map(len, choice.kept.experts.values()))
    reached = kept / sum(len(seen.tokens_E) for seen in choice.reached.values())
    return PruneTarget(kind="keep", asked=settings.share, reached=reached)


def _calibration_of(work: Work) -> CalibrationText:
    """The text that the scores come from."""
    used = work.calibrating
    return CalibrationText(
        source=used.source,
        digest=used.digest,
        tokens=used.tokens,
        windows=len(used.ids_WS1),
        context_tokens=used.context,
    )


def _second_of(work: Work) -> SecondDomain | None:
    """The text that takes no part in the scores."""
    second = work.second
    return second and SecondDomain(source=second.source, digest=second.digest, tokens=second.tokens)


def _warnings_of(work: Work, choice: Choice, target: PruneTarget) -> list[str]:
    """What the choice alone gives reason to say."""
    found = []
    if abs(target.reached - target.asked) > 1e-9:
        found.append(f"{target.asked:g} of the experts is no number that the router allows: {target.reached:.4g} stays")
    if choice.unscored:
        which = "; ".join(
            f"layer {layer}: {', '.join(str(expert) for at, expert in choice.unscored if at == layer)}"
            for layer in dict.fromkeys(layer for layer, _ in choice.unscored)
        )
        unreached = f"no calibration token reached {count_words(len(choice.unscored), 'expert')}"
        fate = "without a share they were merged" if choice.merged else "without a score they went first"
        found.append(f"{unreached}, so {fate}: {which}")
    if work.again:
        found.append("the calibration text is one window, so loss is measured on the window that decided what stays")
    if work.second is None:
        found.append("no second text was scored: what the calibration text does not show may have suffered unseen")
    return found
