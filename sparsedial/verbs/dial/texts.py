"""The windows that `dial --measure` reads: those that score, and those that gates are measured on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparsedial.errors import UserError
from sparsedial.pruning.windows import Windows, context_of, read_windows, spread
from sparsedial.shape.shape import Shape
from sparsedial.showing.notes import note, note_skipped
from sparsedial.text.tokenizer import load_tokenizer
from sparsedial.verbs.dial.settings import DialSettings
from sparsedial.verbs.texts_apart import require_apart

CALIBRATION_TOKENS = 8192  # that gates are measured on, at most


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The windows that score, and those that gates are measured on; None where no setting needs them."""

    scored: Windows
    calibrating: Windows | None


def dial_texts(folder: Path, shape: Shape, settings: DialSettings, *, gated: bool) -> Texts:
    """The windows to read; without a text of their own, gates are measured on windows that do not score.

    Raises: UserError for a text that is missing, bad, too short, not needed, or does not fit the model.
    """
    if settings.calibrate and not gated:
        raise UserError("no setting takes a share of the neurons", hint="leave it out", field="calibrate")
    require_apart(settings.text, settings.calibrate, "gates would be measured on what is scored", "calibrate")
    context, tokenizer = context_of(shape, settings.context), load_tokenizer(folder)
    note("reading the text")
    sizes = {"tokenizer": tokenizer, "vocab_size": shape.vocab_size, "context": context}
    beside = CALIBRATION_TOKENS if gated and not settings.calibrate else 0
    windows = read_windows(settings.text, field="text", tokens=settings.scored_tokens + beside, **sizes)
    note_skipped(windows.skipped)
    if not gated:
        return Texts(scored=windows, calibrating=None)
    if settings.calibrate:
        other = read_windows(settings.calibrate, field="calibrate", tokens=CALIBRATION_TOKENS, **sizes)
        note_skipped(other.skipped)
        return Texts(scored=windows, calibrating=other)
    count = len(windows.ids_WS1)
    if count < 2:
        raise UserError(
            f"{windows.source} has one window of {context:,} tokens, and gates are measured on another one",
            hint="give more text, a smaller <context>, or a text of its own with <calibrate>",
            field="text",
        )
    scored = spread(count, count * settings.scored_tokens // (settings.scored_tokens + beside))
    rest = np.setdiff1d(np.arange(count), scored)
    return Texts(scored=windows.pick(scored), calibrating=windows.pick(rest))
