"""`prune --compare`: several methods at several shares, side by side; no checkpoint of them is kept."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from sparsedial.machine.hardware import peak_process_bytes
from sparsedial.pruning.comparing import axis_of, front, order_of
from sparsedial.pruning.methods import Ask, PartName
from sparsedial.pruning.quality import Nats, nats_of
from sparsedial.pruning.sizing import file_bytes
from sparsedial.records.compare import COMPARE_FILE, Compared, MethodOrder
from sparsedial.records.record import write
from sparsedial.showing.notes import note
from sparsedial.store import whole_folder
from sparsedial.verbs.checkpoint_costs import costs_of
from sparsedial.verbs.checkpoint_names import unchanged
from sparsedial.verbs.prune.answer import calibration_of
from sparsedial.verbs.prune.choice import Work, opened
from sparsedial.verbs.prune.compare_settings import asks_of, in_words_of_a_comparison
from sparsedial.verbs.prune.settings import PruneSettings
from sparsedial.verbs.prune.tried import Tried, all_tried, rates_of, timed, with_rate
from sparsedial.verbs.prune.unfinished import found_so_far


def compared(settings: PruneSettings, began: float) -> Compared:
    """Try every method at every share, and write the comparison with its picture.

    Raises: UserError as `prune`, and where the package that draws is missing.
    """
    from sparsedial.showing.compare_figure import write_picture  # before the work, since it may be missing

    asks = asks_of(settings)
    with in_words_of_a_comparison():
        work = opened(settings, asks)
        with found_so_far(settings, work.texts) as shelf:
            whole = nats_of(work.model, work.scored)
            answer = _answer(work, whole, list(all_tried(work, whole, asks, shelf)), settings, began)
            with whole_folder(settings.out.resolve()) as partial:
                write_picture(answer, partial)
                write(partial / COMPARE_FILE, answer)
    return answer


def _answer(
    work: Work, whole: Mapping[str, Nats], tried: Sequence[Tried], settings: PruneSettings, began: float
) -> Compared:
    from sparsedial.showing.compare_figure import PICTURE

    note("timing the original and each size that stays")
    rates, name = rates_of(work, tried), work.calibrating.source
    points, axis = [timed(one, rates) for one in tried], axis_of({one.ask.how.part for one in tried})
    return Compared(
        checkpoint=unchanged(work.name),
        calibration=calibration_of(work.calibrating),
        second_domain=work.second.record,
        second_domain_reason=work.second.reason,
        before=with_rate(costs_of(work.shape, file_bytes(work.tensors), whole), rates.get(work.shape)),
        points=tuple(points),
        axis=axis,
        pareto=front([(point.stays(axis), point.loss_increase[name].mean) for point in points]),
        orders=_orders(tried, name),
        picture=PICTURE,
        out=str(settings.out),
        wall_seconds=time.perf_counter() - began,
        peak_process_bytes=peak_process_bytes(),
    )


def _orders(tried: Sequence[Tried], text: str) -> tuple[MethodOrder, ...]:
    """The order of each part's methods at each share."""
    alike: dict[tuple[PartName, float], dict[str, Nats]] = {}
    for one in tried:
        alike.setdefault(_kind(one.ask), {})[one.ask.method] = one.nats[text]
    return tuple(order_of(part, share, losses) for (part, share), losses in alike.items())


def _kind(ask: Ask) -> tuple[PartName, float]:
    return ask.how.part, ask.keep
