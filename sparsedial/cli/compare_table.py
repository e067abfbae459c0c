"""The table of `prune --compare`: each method at each share, and how the methods rank."""

from __future__ import annotations

from collections.abc import Sequence

from sparsedial.cli.prune_table import second_rows
from sparsedial.cli.rows import aligned, lines, under
from sparsedial.records.compare import Compared, ComparedPoint, MethodOrder
from sparsedial.showing.numbers import NONE, interval_words, rate_words
from sparsedial.units import human_bytes, human_count


def compare_table(done: Compared) -> str:
    """What was compared, every point, the order of the methods, and where the picture lies."""
    return lines(
        [
            ("calibrated on", f"{human_count(done.calibration.tokens)} tokens of {done.calibration.source}"),
            *second_rows(done.second_domain),
            *under("compared", aligned([_heads(done), _original(done), *_points(done)])),
            ("", "* nothing that keeps as little adds less loss"),
            *((f"{one.strength:g} of the {one.part}", _order(one)) for one in done.orders),
            *(("warning", words) for one in done.points for words in _warnings(one)),
            ("picture", f"{done.out}/{done.picture}"),
        ]
    )


def _heads(done: Compared) -> list[str]:
    second = ["added loss, second text"] if done.second_domain else []
    losses = ["added loss", *second]
    return ["", "part", "method", "stays", "a token's parameters", "weights", *losses, "written, tokens a second"]


def _original(done: Compared) -> list[str]:
    second = [NONE] if done.second_domain else []
    costs = done.before
    rest = [human_count(costs.active_parameters), human_bytes(costs.weight_bytes), NONE, *second]
    return ["", "", "the original", "1", *rest, rate_words(costs.decode_tokens_per_second)]


def _points(done: Compared) -> list[list[str]]:
    """A row for each point, and a star where it is on the Pareto front."""
    texts = [done.calibration.source, *([done.second_domain.source] if done.second_domain else [])]
    return [["*" if at in done.pareto else "", *_cells(one, texts)] for at, one in enumerate(done.points)]


def _cells(point: ComparedPoint, texts: Sequence[str]) -> list[str]:
    costs = point.after
    return [
        point.part,
        point.method,
        f"{point.target.reached:.3g}",
        human_count(costs.active_parameters),
        human_bytes(costs.weight_bytes),
        *(interval_words(point.loss_increase[name]) for name in texts),
        rate_words(costs.decode_tokens_per_second),
    ]


def _warnings(point: ComparedPoint) -> list[str]:
    return [f"{point.method} at {point.target.asked:g}: {words}" for words in point.warnings]


def _order(one: MethodOrder) -> str:
    """`reap, frequency, random: each is surely better than the next`."""
    if len(one.order) < 2:
        return ", ".join(one.order)
    sure = "each is surely better than the next" if one.resolved else "neighbours do not all differ by more than chance"
    return f"{', '.join(one.order)}: {sure}"
