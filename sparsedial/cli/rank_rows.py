"""What each of the processes that train one model holds and sends, as rows of a dry run's table."""

from __future__ import annotations

from collections.abc import Sequence

from sparsedial.cli.rows import Rows, aligned, under
from sparsedial.records.dry_run import RankCosts
from sparsedial.units import human_bytes, human_count

HEAD = ("rank", "moves", "weights", "gradients", "moments", "activations", "buffers")
SHOWN = 8  # ranks; of more the two that own most and least


def rank_rows(ranks: Sequence[RankCosts]) -> Rows:
    """A line for each rank, and what their messages carry; nothing where one process trains alone."""
    if not ranks:
        return []
    by_moments = sorted(ranks, key=lambda one: one.memory_bytes.optimizer)
    shown = ranks if len(ranks) <= SHOWN else (by_moments[-1], by_moments[0])
    head = "ranks" if len(ranks) <= SHOWN else f"{len(ranks)} ranks, most and least"
    return [*under(head, aligned([HEAD, *map(_cells, shown)])), ("messages of a step", _messages(ranks[0]))]


def _cells(one: RankCosts) -> tuple[str, ...]:
    held = one.memory_bytes
    sizes = (held.weights, held.gradients, held.optimizer, held.activations, held.buffers)
    return (str(one.rank), human_count(one.parameters), *map(human_bytes, sizes))


def _messages(one: RankCosts) -> str:
    sent = one.bytes_per_step
    gradients = sent.reduce_scatter + sent.all_to_all
    kinds = {"of gradients": gradients, "of new weights": sent.all_gather, "of loads and figures": sent.all_reduce}
    return ", ".join(f"{human_bytes(size)} {kind}" for kind, size in kinds.items())
