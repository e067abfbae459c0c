"""The four costs that `prune` measures: of the original, of the smaller checkpoint, and of a random choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sparsedial.model.reading import read_checkpoint
from sparsedial.model.transformer import Transformer
from sparsedial.pruning.kept import Choice, Kept
from sparsedial.pruning.quality import Nats, mean_nats, nats_of
from sparsedial.pruning.scored_in_turn import nats_in_turn
from sparsedial.pruning.shelf import Shelf
from sparsedial.pruning.sizing import file_bytes, weight_bytes
from sparsedial.pruning.speed import Place, speeds_of, timed_ids
from sparsedial.records.prune import CheckpointCosts
from sparsedial.records.quantities import Interval
from sparsedial.showing.notes import note
from sparsedial.verbs.checkpoint_costs import costs_of
from sparsedial.verbs.prune.choice import Work

FAR = "layers were read from their files one at a time, so no speed was measured"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What turning off did."""

    before: CheckpointCosts
    after: CheckpointCosts
    control: CheckpointCosts | None
    increases: dict[str, Interval]  # of the loss, by text
    over_control: Interval | None  # the bare cut's loss on the calibration text above that of the random choices
    nats: Mapping[str, Nats]  # of the smaller checkpoint, by text
    model: Transformer  # that checkpoint, as it was written

    @property
    def times_as_fast(self) -> float:
        """Tokens written per second over the original's."""
        before, after = (costs.decode_tokens_per_second for costs in (self.before, self.after))
        assert before is not None
        assert after is not None
        return after.median / before.median


def measured(
    work: Work, choice: Choice, original: Path, folder: Path, shelf: Shelf, cut: Mapping[str, Nats] | None = None
) -> Measured:
    """Measure a written checkpoint beside its original, and the mean loss of the random choices.

    On the shelf is what was found of that before. `cut` is the loss right after the cut, where the checkpoint was
    trained since.
    """

    def nats(name: str, words: str, model: Transformer) -> dict[str, Nats]:
        note(f"measuring the loss of {words}")
        return nats_in_turn(model, work.scored, shelf.under(name)) if work.far else nats_of(model, work.scored)

    draws = len(choice.controls)
    drawn = [
        nats(f"random-{number}", f"random choice {number + 1} of {draws}", smaller(work, kept))
        for number, kept in enumerate(choice.controls)
    ]
    at_random = mean_nats(drawn) if drawn else None
    written = read_checkpoint(folder)
    model = work.build(written.shape, written.tensors)
    before, after = nats("before", "the original", work.model), nats("after", "the smaller checkpoint", model)
    if not work.far:
        note("measuring the speed and memory of both")
    ids = timed_ids(work.scored[work.calibrating.source])
    speeds = {} if work.far else speeds_of({original: work.model, folder: model}, Place, ids)
    control = over_control = None
    if at_random is not None:
        first = choice.controls[0]
        control = costs_of(first.shape(work.shape), weight_bytes(work.tensors, first), at_random)
        over_control = (cut or after)[work.calibrating.source].above(at_random[work.calibrating.source])
    tasks = [work.tasks.scores(place, each) for place, each in ((original, work.model), (folder, model))]
    sizes = file_bytes(work.tensors), weight_bytes(work.tensors, choice.kept)
    return Measured(
        before=costs_of(work.shape, sizes[0], before, original, speeds.get(original), tasks[0], FAR),
        after=costs_of(model.shape, sizes[1], after, folder, speeds.get(folder), tasks[1], FAR),
        control=control,
        increases={name: nats.above(before[name]) for name, nats in after.items()},
        over_control=over_control,
        nats=after,
        model=model,
    )


def smaller(work: Work, kept: Kept) -> Transformer:
    """What stays by a choice, as a model that is not written."""
    return work.build(kept.shape(work.shape), kept.stream(work.tensors))


def nats_of_kept(work: Work, kept: Kept) -> dict[str, Nats]:
    """Its loss."""
    return nats_of(smaller(work, kept), work.scored)
