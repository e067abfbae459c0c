"""What `prune --split-experts` measures: the split checkpoint at some numbers of experts, and its rivals at one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsedial.model.checkpoint import load, model_of
from sparsedial.model.stream import NamedTensor
from sparsedial.model.transformer import Transformer
from sparsedial.model.turned import at_setting
from sparsedial.pruning.neurons import keep_neurons
from sparsedial.pruning.quality import Nats, nats_of
from sparsedial.pruning.speed import Place, speeds_of, timed_ids
from sparsedial.pruning.split_sizes import SplitSizes
from sparsedial.pruning.splitting import Divided
from sparsedial.pruning.windows import Windows
from sparsedial.records.prune import CheckpointCosts
from sparsedial.records.quantities import Interval
from sparsedial.records.setting import Setting
from sparsedial.records.split import SplitPoint
from sparsedial.shape.turned import Turned
from sparsedial.showing.notes import note
from sparsedial.verbs.checkpoint_costs import costs_of
from sparsedial.verbs.prune.texts import PruneTexts

Losses = Mapping[str, Nats]  # by text
ANY_DIVISION = "with all experts on, any division is the dense model"
NOTHING_GOES = "with all experts on, nothing is removed"


@dataclass(frozen=True, kw_only=True)
class SplitCosts:
    """What splitting did."""

    before: CheckpointCosts
    after: CheckpointCosts
    control: CheckpointCosts | None  # None where all experts are on
    points: tuple[SplitPoint, ...]
    over_default: tuple[Mapping[str, Interval], ...]  # of each point: the loss above that of the default, by text
    nats: Losses  # of the checkpoint as it is written


@dataclass(frozen=True, kw_only=True)
class Rivals:
    """Other ways to as many neurons of a token, nothing of them trained."""

    at_random: Losses  # the neurons are divided by chance
    removed: Losses  # of each layer as many neurons stay, by `activation`


def measured(
    dense: Transformer, tensors: Sequence[NamedTensor], found: Divided, read: PruneTexts, original: Path, folder: Path
) -> SplitCosts:
    """Measure a written checkpoint at some settings, beside its original, and its rivals at one of them.

    `tensors` are those of the original; all speeds are measured in turns. All settings hold the same weights, so the
    memory of a process is measured at the default alone.
    """
    model, scored, sizes = load(folder), read.scored, found.split.sizes
    settings = {top_k: found.setting(top_k) for top_k in sizes.settings}
    note(f"measuring the loss of the original and at {', '.join(map(str, settings))} experts")
    before = nats_of(dense, scored)
    models = {top_k: at_setting(model, turned) for top_k, turned in settings.items()}
    losses = {top_k: nats_of(one, scored) for top_k, one in models.items()}
    note(f"measuring it for a random division and for as many neurons removed, at {sizes.compared} experts")
    rivals = _rivals(dense, tensors, found, scored)
    note("timing the original and each setting in turns")
    places = {0: Place(original), sizes.top_k: Place(folder, settings[sizes.top_k])}
    speeds = speeds_of({0: dense, **models}, places.get, timed_ids(read.scored_part))
    bytes_before = sum(tensor.nbytes for tensor in tensors)
    nbytes = sum(tensor.nbytes for tensor in found.split.stream(tensors))
    costs = {top_k: costs_of(one.shape, nbytes, losses[top_k], folder, speeds[top_k]) for top_k, one in models.items()}
    return SplitCosts(
        before=costs_of(dense.shape, bytes_before, before, original, speeds[0]),
        after=costs[sizes.top_k],
        control=costs_of(model.shape, nbytes, rivals.at_random) if sizes.top_k == sizes.compared else None,
        points=tuple(
            SplitPoint(
                setting=Setting.of(turned, model.shape),
                neurons_share=sizes.share(top_k),
                costs=costs[top_k],
                loss_increase=_above(losses[top_k], before),
                at_random=_above(rivals.at_random, before) if top_k == sizes.compared else None,
                at_random_reason=_why_not(sizes, top_k, ANY_DIVISION),
                removed=_above(rivals.removed, before) if top_k == sizes.compared else None,
                removed_reason=_why_not(sizes, top_k, NOTHING_GOES),
            )
            for top_k, turned in settings.items()
        ),
        over_default=tuple(_above(losses[top_k], losses[sizes.top_k]) for top_k in settings),
        nats=losses[sizes.top_k],
    )


def _rivals(
    dense: Transformer, tensors: Sequence[NamedTensor], found: Divided, scored: Mapping[str, Windows]
) -> Rivals:
    """The losses of both, at the number of experts that they are measured at; one of them at a time is in memory."""
    sizes, scores, shape = found.split.sizes, found.scores, dense.shape
    even = Turned(top_k=(sizes.compared,))
    at_random = nats_of(at_setting(model_of(found.drawn.shape(shape), found.drawn.stream(tensors)), even), scored)
    counts = {layer: round(len(one) * sizes.share(sizes.compared)) for layer, one in scores.items()}
    kept = keep_neurons(scores, counts)
    return Rivals(at_random=at_random, removed=nats_of(model_of(kept.shape(shape), kept.stream(tensors)), scored))


def _why_not(sizes: SplitSizes, top_k: int, with_all: str) -> str | None:
    """Why a rival was not measured at this number of experts."""
    if top_k == sizes.compared:
        return None
    return with_all if top_k == sizes.experts else f"measured at {sizes.compared} experts alone"


def _above(losses: Losses, before: Losses) -> dict[str, Interval]:
    return {name: nats.above(before[name]) for name, nats in losses.items()}
