"""The points of `prune --compare`: each choice is made and measured in memory, and forgotten before the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import torch

from sparsedial.model.checkpoint import model_of
from sparsedial.pruning.kept import Chooser, Kept
from sparsedial.pruning.methods import DRAWS, Ask, PartName
from sparsedial.pruning.parts import PARTS
from sparsedial.pruning.quality import Nats, mean_nats
from sparsedial.pruning.shelf import Shelf, shelf_of
from sparsedial.pruning.sizing import weight_bytes
from sparsedial.pruning.speed import decode_rates, timed_ids
from sparsedial.records.compare import ComparedPoint, MeasuredPoint
from sparsedial.records.prune import CheckpointCosts, PruneTarget, Quantiles
from sparsedial.shape.shape import Shape
from sparsedial.showing.notes import note
from sparsedial.units import count_words, human_count, signed
from sparsedial.verbs.checkpoint_costs import costs_of
from sparsedial.verbs.prune.choice import Work
from sparsedial.verbs.prune.costs import nats_of_kept
from sparsedial.verbs.prune.reached import rounding

POINT, NATS = "point", "nats"  # of a choice, on its shelf
NOT_KEPT = "choices are compared in memory, and not written"
NOT_TIMED = "a comparison times decoding alone"
ZEROS = "zeros are stored as other weights are, so no speed is gained, and none was timed"


@dataclass(frozen=True, kw_only=True, eq=False)
class Tried:
    """One method at one share, and what was measured of it."""

    ask: Ask
    point: ComparedPoint  # whose speed is not known yet
    nats: Mapping[str, Nats]  # by text
    shape: Shape
    kept: Callable[[], Kept] | None  # None where nothing gets smaller, and so nothing faster


def all_tried(work: Work, whole: Mapping[str, Nats], asks: Sequence[Ask], shelf: Shelf) -> Iterator[Tried]:
    """Every choice, part by part; each part is calibrated once. `whole` is the loss of the original, by text.

    On the shelf is what was found before; points that are there are not made again.
    """
    parts: dict[PartName, None] = dict.fromkeys(ask.how.part for ask in asks)
    for part in parts:
        own = [ask for ask in asks if ask.how.part == part]
        read = f"calibrating on {human_count(work.calibrating.tokens)} tokens"
        note(f"{part}: {read}, for {count_words(len(own), 'choice')}")
        of_part = shelf.under(part)
        chooser = PARTS[part].calibrate(work.model, torch.from_numpy(work.calibrating.ids_WS1), own, of_part)
        for ask in own:
            own_shelf = shelf_of(shelf, ask)
            one = _before(work, ask, chooser, own_shelf)
            if one is None:
                one = _tried(replace(work, ask=ask), chooser, whole)
                _keep(one, own_shelf)
            if one.kept is None:
                shelf_of(of_part, ask).clear()  # as large as the model
            grown = one.point.loss_increase[work.calibrating.source].mean
            note(f"{ask.method} at {ask.keep:g}: {signed(grown)} nats per token")
            yield one


def _before(work: Work, ask: Ask, chooser: Chooser, shelf: Shelf) -> Tried | None:
    """A choice that was made and measured before a stop."""
    found, nats = shelf.read(POINT, MeasuredPoint), shelf.get(NATS)
    if found is None or nats is None:
        return None
    return Tried(
        ask=ask,
        point=found.point,
        nats={name: Nats(windows, nats[name]().numpy()) for name, windows in work.scored.items()},
        shape=found.shape,
        kept=(lambda: chooser(ask).kept) if PARTS[ask.how.part].shrinks else None,
    )


def _keep(one: Tried, shelf: Shelf) -> None:
    shelf.put(NATS, {name: torch.from_numpy(nats.nats_W) for name, nats in one.nats.items()})
    shelf.write(POINT, MeasuredPoint(point=one.point, shape=one.shape))


def _tried(work: Work, chooser: Chooser, whole: Mapping[str, Nats]) -> Tried:
    ask, part = work.ask, work.part
    seeds = range(ask.seed, ask.seed + DRAWS) if ask.how.drawn else (ask.seed,)
    choices = [chooser(replace(ask, seed=seed)) for seed in seeds]
    nats = mean_nats([nats_of_kept(work, choice.kept) for choice in choices])
    kept = choices[0].kept
    shape, target = kept.shape(work.shape), PruneTarget(kind="keep", asked=ask.keep, reached=kept.share(work.shape))
    point = ComparedPoint(
        part=ask.how.part,
        method=ask.method,
        budget=ask.budget,
        sequential=ask.in_turn,
        pattern=ask.pattern,
        target=target,
        draws=len(choices),
        kept=kept.parts(work.shape),
        unscored_experts=choices[0].unscored,
        after=with_rate(costs_of(shape, weight_bytes(work.tensors, kept), nats), None),
        loss_increase={name: found.above(whole[name]) for name, found in nats.items()},
        warnings=(*rounding(ask.how.part, target), *choices[0].notes),
    )
    return Tried(ask=ask, point=point, nats=nats, shape=shape, kept=(lambda: kept) if part.shrinks else None)


def rates_of(work: Work, tried: Sequence[Tried]) -> dict[Shape, Quantiles]:
    """Decoded tokens per second of the original and of each size, all timed in turns; none where nothing shrinks."""
    smaller = {one.shape: one.kept for one in reversed(tried) if one.kept is not None}
    models = {shape: model_of(shape, kept().stream(work.tensors)) for shape, kept in smaller.items()}
    ids = timed_ids(work.scored[work.calibrating.source])
    return decode_rates({work.shape: work.model, **models}, ids) if models else {}


def timed(one: Tried, rates: Mapping[Shape, Quantiles]) -> ComparedPoint:
    """The point, with the speed of its size where it has one of its own."""
    rate = None if one.kept is None else rates[one.shape]
    return msgspec.structs.replace(one.point, after=with_rate(one.point.after, rate))


def with_rate(costs: CheckpointCosts, rate: Quantiles | None) -> CheckpointCosts:
    """Costs of what lies in no folder and is only timed as it decodes, at this rate."""
    return msgspec.structs.replace(
        costs,
        disk_bytes_reason=NOT_KEPT,
        prefill_tokens_per_second_reason=NOT_TIMED,
        decode_tokens_per_second=rate,
        decode_tokens_per_second_reason=ZEROS if rate is None else None,
        peak_memory_bytes_reason=NOT_KEPT,
        joules_per_token_reason=NOT_TIMED,
    )
