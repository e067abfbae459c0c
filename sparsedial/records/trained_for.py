"""The numbers of experts that a checkpoint was trained for, in a run and in its `config.json`; the loss at each."""

from __future__ import annotations

from typing import ClassVar, Literal

from sparsedial.records.record import Record, parse, plain
from sparsedial.shape.hugging_face.values import Config, Fields

DialBy = Literal["step", "layer"]  # whether all layers of a training step have the same number, or each its own
DialEnd = Literal["highest", "lowest"]  # the number that all layers have in the last steps
TRAINED_FOR = "sparsedial_trained_for"  # in a `config.json`; other programs ignore it


class TrainedFor(Record, frozen=True, kw_only=True):
    """The dial that a model was trained for."""

    top_k_experts: tuple[int, ...]  # increasing; the highest is what the model uses unless it is told otherwise
    by: DialBy
    end: DialEnd = "lowest"  # what runs did before it could be asked for

    ADDED_LATER: ClassVar[tuple[str, ...]] = ("end",)


class DialLoss(Record, frozen=True, kw_only=True):
    """A model's loss where its tokens visit fewer experts; null on text that it was not scored on."""

    top_k_experts: int
    active_parameters: int
    validation_loss: float | None  # nats per token
    validation_bits_per_byte: float | None
    test_loss: float | None
    test_bits_per_byte: float | None


def trained_for(config: Config) -> TrainedFor | None:
    """What a checkpoint's configuration says that it was trained for; None where it says nothing.

    Raises: UserError where what it says is damaged.
    """
    said = config.get(TRAINED_FOR)
    return None if said is None else parse(said, TrainedFor, f"{config.origin}: {TRAINED_FOR}")


def with_trained_for(config: Fields, dial: TrainedFor | None) -> Fields:
    """The content of a `config.json` that says this and nothing else of what its model was trained for."""
    others = {name: value for name, value in config.items() if name != TRAINED_FOR}
    return others if dial is None else {**others, TRAINED_FOR: plain(dial)}
