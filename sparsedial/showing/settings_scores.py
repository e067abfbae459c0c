"""Settings of a dial by quality, speed and energy: a block of the loss, and one of each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsedial.records.evaluation import Evaluation, TaskScore
from sparsedial.showing.numbers import NONE, value_words
from sparsedial.units import human_count, human_joules


@dataclass(frozen=True, kw_only=True)
class Block:
    """A title, heads, and a row of cells for each setting."""

    title: str
    heads: Sequence[str]
    cells: Sequence[Sequence[str]]


def blocks(results: Sequence[Evaluation]) -> list[Block]:
    """What was measured at each setting."""
    found = [
        Block(
            title="setting", heads=("active parameters", "loss", "bits per byte"), cells=[_loss(one) for one in results]
        )
    ]
    for task in results[0].tasks or ():
        scores = [(one.tasks or {})[task] for one in results]
        heads = (scores[0].primary, "items a second", "an item")
        found.append(Block(title=task, heads=heads, cells=[_task(score) for score in scores]))
    return found


def names(results: Sequence[Evaluation]) -> list[str]:
    """What tells answers apart: checkpoints by path, settings of one checkpoint by name, of several by both."""
    short = len({one.checkpoint.path for one in results}) == 1 < len(results)
    return [_name(one, short=short) for one in results]


def _name(one: Evaluation, *, short: bool) -> str:
    if one.setting is None:
        return one.checkpoint.path
    return one.setting.name if short else f"{one.checkpoint.path} at {one.setting.name}"


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
