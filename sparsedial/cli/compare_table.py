"""The table of `prune --compare`: each method at each share, and how the methods rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sparsedial.cli.prune_table import second_rows
from sparsedial.cli.rows import aligned, lines, under
from sparsedial.records.compare import Compared, ComparedPoint, MethodOrder
from sparsedial.records.prune import CheckpointCosts
from sparsedial.showing.numbers import grown_words, rate_words
from sparsedial.units import human_bytes, human_count

SIZES = ("", "stays", "a token's parameters", "weights", "written, tokens/s")


def compare_table(done: Compared) -> str:
    """What was compared, every point, the order of the methods, and where the picture lies."""
    return lines(
        [
            ("calibrated on", f"{human_count(done.calibration.tokens)} tokens of {done.calibration.source}"),
            *second_rows(done.second_domain),
            *under("added loss", aligned([_heads(done), *_points(done)])),
            ("", "* nothing that keeps as little adds less loss"),
            *under("size and speed", aligned([SIZES, *dict.fromkeys(_sizes(done))])),
            *((f"{one.strength:g} of the {one.part}", _order(one)) for one in done.orders),
            *(("warning", words) for words in _warnings(done)),
            ("picture", f"{done.out}/{done.picture}"),
        ]
    )


def _heads(done: Compared) -> list[str]:
    return ["", "method", "stays", "nats per token", *(["on the second text"] if done.second_domain else [])]


def _sizes(done: Compared) -> Iterator[tuple[str, ...]]:
    """Of the original and of what each point leaves: methods of one part that leave as much have one size and speed."""
    yield ("the original", "1", *_size(done.before))
    for point in done.points:
        yield (point.part, _stays(point), *_size(point.after))


def _size(costs: CheckpointCosts) -> tuple[str, ...]:
    active, weights = human_count(costs.active_parameters), human_bytes(costs.weight_bytes)
    return active, weights, rate_words(costs.decode_tokens_per_second)


def _stays(point: ComparedPoint) -> str:
    return f"{point.target.reached:.3g}"


def _points(done: Compared) -> list[list[str]]:
    """A row for each point, and a star where it is on the Pareto front."""
    texts = [done.calibration.source, *([done.second_domain.source] if done.second_domain else [])]
    return [["*" if at in done.pareto else "", *_cells(one, texts)] for at, one in enumerate(done.points)]


def _cells(point: ComparedPoint, texts: Sequence[str]) -> list[str]:
    return [point.method, _stays(point), *(grown_words(point.loss_increase[name]) for name in texts)]


def _warnings(done: Compared) -> list[str]:
    """Each warning once, with the points that it is about."""
    about: dict[str, list[str]] = {}
    for point in done.points:
        for words in point.warnings:
            about.setdefault(words, []).append(f"{point.method} at {point.target.asked:g}")
    return [f"{', '.join(names)}: {words}" for words, names in about.items()]


def _order(one: MethodOrder) -> str:
    """`reap, frequency, random: each is surely better than the next`."""
    if len(one.order) < 2:
        return ", ".join(one.order)
    return f"{', '.join(one.order)}: {one.unresolved_reason or 'each is surely better than the next'}"
