"""What `prune --split-experts` measures: the split checkpoint at each number of experts, and its rivals."""

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
from sparsedial.pruning.speed import Place, speeds_of
from sparsedial.pruning.splitting import Divided
from sparsedial.pruning.windows import Windows
from sparsedial.records.prune import CheckpointCosts
from sparsedial.records.quantities import Interval
from sparsedial.records.setting import Setting
from sparsedial.records.split import SplitPoint
from sparsedial.shape.turned import Turned
from sparsedial.verbs.checkpoint_costs import costs_of

Losses = Mapping[str, Nats]  # by text


@dataclass(frozen=True, eq=False)
class SplitTexts:
    """The texts as windows."""

    calibrating: Windows
    scored_part: Windows  # of the calibration text
    second: Windows | None

    @property
    def scored(self) -> dict[str, Windows]:
        """By text; the calibration's first."""
        return {text.source: text for text in (self.scored_part, *([self.second] if self.second else []))}


@dataclass(frozen=True, kw_only=True)
class SplitCosts:
    """What splitting did."""

    before: CheckpointCosts
    after: CheckpointCosts
    control: CheckpointCosts
    points: tuple[SplitPoint, ...]


def measured(
    dense: Transformer, tensors: Sequence[NamedTensor], found: Divided, read: SplitTexts, original: Path, folder: Path
) -> SplitCosts:
    """Measure a written checkpoint at each setting, beside its original and a random division.

    `tensors` are those of the original; all speeds are measured in turns.
    """
    model, scored, sizes = load(folder), read.scored, found.split.sizes
    shape, before = model.shape, nats_of(dense, scored)
    settings = {top_k: found.setting(top_k) for top_k in sizes.settings}
    models = {top_k: at_setting(model, turned) for top_k, turned in settings.items()}
    losses = {top_k: nats_of(one, scored) for top_k, one in models.items()}
    drawn = model_of(found.drawn.shape(dense.shape), found.drawn.stream(tensors))
    at_random = {top_k: nats_of(at_setting(drawn, Turned(top_k=(top_k,))), scored) for top_k in settings}
    removed = {
        top_k: _removed(dense, tensors, found, scored, top_k) if top_k < sizes.experts else before for top_k in settings
    }
    speeds = speeds_of({0: dense, **models}, lambda top_k: Place(folder, settings[top_k]) if top_k else Place(original))
    bytes_before = sum(tensor.nbytes for tensor in tensors)
    nbytes = sum(tensor.nbytes for tensor in found.split.stream(tensors))
    costs = {top_k: costs_of(one.shape, nbytes, losses[top_k], folder, speeds[top_k]) for top_k, one in models.items()}
    return SplitCosts(
        before=costs_of(dense.shape, bytes_before, before, original, speeds[0]),
        after=costs[sizes.top_k],
        control=costs_of(shape, nbytes, at_random[sizes.top_k]),
        points=tuple(
            SplitPoint(
                setting=Setting.of(turned, shape),
                neurons_share=sizes.share(top_k),
                costs=costs[top_k],
                loss_increase=_above(losses[top_k], before),
                at_random=_above(at_random[top_k], before),
                removed=_above(removed[top_k], before),
            )
            for top_k, turned in settings.items()
        ),
    )


def _removed(
    dense: Transformer, tensors: Sequence[NamedTensor], found: Divided, scored: Mapping[str, Windows], top_k: int
) -> Losses:
    """The loss where of each layer as many neurons stay as a token with so many experts visits, by `activation`."""
    scores = found.scores
    counts = {layer: round(len(one) * found.split.sizes.share(top_k)) for layer, one in scores.items()}
    kept = keep_neurons(scores, counts)
    return nats_of(model_of(kept.shape(dense.shape), kept.stream(tensors)), scored)


def _above(losses: Losses, before: Losses) -> dict[str, Interval]:
    return {name: nats.above(before[name]) for name, nats in losses.items()}
