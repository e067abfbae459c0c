"""The table of an evaluation at several settings: quality, speed and energy of each, a block for each task."""

from __future__ import annotations

from collections.abc import Sequence

from sparsedial.cli.rows import Rows, aligned
from sparsedial.records.evaluation import Evaluation, TaskScore
from sparsedial.showing.numbers import NONE, value_words
from sparsedial.units import human_count, human_joules


def settings_rows(results: Sequence[Evaluation]) -> Rows:
    """A line for each setting, of the loss and then of each task."""
    several = len({one.checkpoint.path for one in results}) > 1
    names = [_name(one, several) for one in results]
    blocks = [_block("setting", ("active parameters", "loss", "bits per byte"), names, [_loss(one) for one in results])]
    for task in results[0].tasks or {}:
        scores = [(one.tasks or {})[task] for one in results]
        heads = (scores[0].primary, "items a second", "an item")
        blocks.append(_block(task, heads, names, [_task(score) for score in scores]))
    return [row for block in blocks for row in block]


def _name(one: Evaluation, several: bool) -> str:
    setting = "" if one.setting is None else one.setting.name
    return f"  {one.checkpoint.path} at {setting}" if several else f"  {setting}"


def _block(title: str, heads: Sequence[str], names: Sequence[str], cells: Sequence[Sequence[str]]) -> Rows:
    head, *lines = aligned([heads, *cells])
    return [(title, head), *zip(names, lines, strict=True)]


def _loss(one: Evaluation) -> list[str]:
    active = NONE if one.setting is None else human_count(one.setting.active_parameters)
    if one.loss is None or one.bits_per_byte is None:
        return [active, NONE, NONE]
    return [active, value_words(one.loss, one.loss_interval), f"{one.bits_per_byte:.4f}"]


def _task(score: TaskScore) -> list[str]:
    value, energy = score.metrics[score.primary], score.joules_per_item
    return [
        value_words(value.mean, value),
        NONE if score.items_per_second is None else f"{score.items_per_second:.3g}",
        NONE if energy is None else f"{human_joules(energy.joules)}, {energy.basis}",
    ]
