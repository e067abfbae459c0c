"""The answer of `prune --split-experts`, and the `dial.json` that follows from it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sparsedial.machine.hardware import describe, peak_process_bytes
from sparsedial.pruning.kept import every_layer
from sparsedial.pruning.quality import foreign, parted, too_few
from sparsedial.pruning.recovery import Recovered
from sparsedial.records.dial_file import DialFile, DialPoint
from sparsedial.records.evaluation import CheckpointName
from sparsedial.records.prune import SCORES_FILE, KeptParts
from sparsedial.records.quantities import Interval
from sparsedial.records.split import SplitExperts, SplitPoint, SplitTarget
from sparsedial.shape.shape import Shape
from sparsedial.verbs.checkpoint_names import unchanged
from sparsedial.verbs.following import versions
from sparsedial.verbs.prune.answer import calibration_of, written_folder
from sparsedial.verbs.prune.settings import PruneSettings
from sparsedial.verbs.prune.split_costs import ANY_DIVISION, SplitCosts
from sparsedial.verbs.prune.texts import PruneTexts


def answered(
    settings: PruneSettings,
    original: CheckpointName,
    shape: Shape,
    read: PruneTexts,
    costs: SplitCosts,
    folder: Path,
    began: float,
    trained: Recovered | None,
) -> SplitExperts:
    """Say what was done to a checkpoint that is now of this Shape, in a folder, and what it did."""
    return SplitExperts(
        checkpoint=unchanged(original),
        out=written_folder(folder, settings.out),
        method="co-activation",
        sequential=False,
        target=SplitTarget(kind="split_experts", asked=shape.experts, reached=shape.experts),
        always=shape.shared_experts,
        top_k=shape.top_k,
        d_expert=tuple(shape.layer(layer).d_expert for layer in range(shape.layers)),
        kept=KeptParts(experts=None, layers=every_layer(shape), d_ff=None, weights_share=None),
        scores=SCORES_FILE,
        unscored_experts=(),
        calibration=calibration_of(read.calibrating),
        second_domain=read.second.record,
        second_domain_reason=read.second.reason,
        before=costs.before,
        after=costs.after,
        control=costs.control,
        control_draws=1,
        control_reason=None if costs.control else ANY_DIVISION,
        dial=costs.points,
        search=None,
        recovery=trained and trained.record(costs.nats),
        warnings=tuple(_warnings(shape, read, costs, trained)),
        wall_seconds=time.perf_counter() - began,
        peak_process_bytes=peak_process_bytes(),
    )


def _warnings(shape: Shape, read: PruneTexts, costs: SplitCosts, trained: Recovered | None) -> Iterator[str]:
    """What there is reason to say."""
    if read.again:
        yield "the calibration text is one window, so loss is measured on the window that decided the division"
    if read.second.reason:
        yield f"{read.second.reason}: what the calibration text does not show may suffer unseen at fewer experts"
    name = read.calibrating.source
    words = foreign(name, costs.before.loss[name].loss, shape)
    yield from [words] if words else []
    windows = {name: len(text.ids_WS1) for name, text in read.scored.items()}
    few = None if read.again else too_few(windows[name])
    yield from [few] if few else []
    found = [(point.setting.name, parted(point.loss_increase, windows)) for point in costs.points]
    yield from [f"{name}: {words}" for name, words in found if words][:1]
    if trained is not None:
        yield from trained.warnings("the random division and the removal")


def dial_of(answer: SplitExperts, costs: SplitCosts) -> DialFile:
    """The settings as a checkpoint's `dial.json` has them: measured on the calibration text, the default first.

    Its losses are above the default's, as those of every dial, and not above the dense checkpoint's.
    """
    source = answer.calibration.source
    windows = len(costs.nats[source].nats_W)
    points = [
        _point(point, source, grown[source]) for point, grown in zip(costs.points, costs.over_default, strict=True)
    ]
    few = too_few(windows)
    default = next(point for point in points if point.setting.top_k_experts == answer.top_k)
    return DialFile(
        checkpoint_digest=answer.out.digest,
        default=default.setting.name,
        trained_for=None,
        settings=(default, *(point for point in points if point is not default)),
        text_digest=answer.calibration.digest,
        warnings=() if few is None else (few,),
        machine=describe(),
        versions=versions(),
    )


def _point(point: SplitPoint, source: str, grown: Interval) -> DialPoint:
    return DialPoint(
        setting=point.setting,
        status="measured",
        loss_increase=grown,
        loss_increase_reason=None,
        costs=msgspec.structs.replace(point.costs, loss={source: point.costs.loss[source]}),
        costs_reason=None,
    )
