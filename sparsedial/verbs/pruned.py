"""The parts of `prune`: the checkpoint and its texts, and the choice of what stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from sparsedial.errors import UserError
from sparsedial.model.checkpoint import model_of
from sparsedial.model.reading import read_checkpoint
from sparsedial.model.stream import NamedTensor
from sparsedial.model.transformer import Transformer
from sparsedial.pruning.kept import Choice
from sparsedial.pruning.methods import Ask
from sparsedial.pruning.parts import PARTS, Part, what_goes
from sparsedial.pruning.windows import Windows, read_windows
from sparsedial.shape.shape import Shape
from sparsedial.showing.notes import note_skipped
from sparsedial.text.tokenizer import load_tokenizer
from sparsedial.verbs.prune_settings import PruneSettings

MOST_CONTEXT = 2048  # of a window, unless it is asked for


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """The original, read and checked, what is asked of it, and the texts."""

    shape: Shape
    tensors: Sequence[NamedTensor]
    model: Transformer
    ask: Ask
    calibrating: Windows
    scored: Mapping[str, Windows]  # by text; the calibration's first
    again: bool  # whether the calibration is so short that it is scored itself
    second: Windows | None

    @property
    def part(self) -> Part:
        """What is turned off."""
        return PARTS[self.ask.how.part]


def opened(settings: PruneSettings) -> Work:
    """Read the checkpoint and the texts; what can be refused is refused before a weight is read.

    Raises: UserError as `prune`.
    """

    checkpoint = read_checkpoint(settings.checkpoint, torch.bfloat16)
    shape, ask = checkpoint.shape, settings.ask
    part = PARTS[ask.how.part]
    lacking = part.lacking(shape)
    if lacking:
        raise UserError(
            f"{settings.checkpoint} {lacking}", hint=f"what a <method> can turn off in it: {what_goes(shape)}"
        )
    part.require(shape, ask)
    windows, second = _texts(settings, shape)
    calibrating, scored = windows.divided(settings.scored_tokens)
    return Work(
        shape=shape,
        tensors=checkpoint.tensors,
        model=model_of(shape, checkpoint.tensors),
        ask=ask,
        calibrating=calibrating,
        scored={text.source: text for text in (scored, *([second] if second else []))},
        again=scored is calibrating,
        second=second,
    )


def _texts(settings: PruneSettings, shape: Shape) -> tuple[Windows, Windows | None]:
    """The calibration text and the second one, as windows."""

    context = min(shape.context, MOST_CONTEXT) if settings.context is None else settings.context
    least = 1 + shape.mtp_layers
    if not least <= context <= shape.context:
        raise UserError(f"{context} lies outside {least}..{shape.context}, the context of the model", field="context")
    if settings.also == settings.calibrate:
        raise UserError("is the calibration text itself", hint="name text of another kind", field="also")
    tokenizer = load_tokenizer(settings.checkpoint)
    sizes = {"vocab_size": shape.vocab_size, "context": context}
    most = settings.calibration_tokens + settings.scored_tokens
    windows = read_windows(settings.calibrate, tokenizer, tokens=most, field="calibrate", **sizes)
    second = None
    if settings.also:
        second = read_windows(settings.also, tokenizer, tokens=settings.scored_tokens, field="also", **sizes)
    for text in (windows, *([second] if second else [])):
        note_skipped(text.skipped)
    return windows, second


def chosen(work: Work) -> Choice:
    """Calibrate and choose.

    Raises: UserError for a calibration text that the model knows less of than a uniform guess does.
    """
    return work.part.choose(work.model, torch.from_numpy(work.calibrating.ids_WS1), work.ask)
