"""The texts of `prune` as windows: those that calibrate, those that score, and those of a second text."""

from __future__ import annotations

from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.pruning.recovery import TEXT
from sparsedial.pruning.windows import Windows, context_of, read_windows, windows_of
from sparsedial.shape.shape import Shape
from sparsedial.showing.notes import note_skipped
from sparsedial.text.prepare import Text, prepare
from sparsedial.text.tokenizer import load_tokenizer
from sparsedial.verbs.prune_settings import PruneSettings


def texts(
    settings: PruneSettings, shape: Shape, home: Path | None = None
) -> tuple[Windows, Windows, Windows | None, Text | None]:
    """Windows that calibrate, windows that score, those of the second text; and the text that is trained on, in `home`.

    Raises: UserError for a text or a context that does not fit the model.
    """

    context = context_of(shape, settings.context, least=1 + shape.mtp_layers)
    if settings.also == settings.calibrate:
        raise UserError("is the calibration text itself", hint="name text of another kind", field="also")
    tokenizer = load_tokenizer(settings.checkpoint)
    sizes = {"vocab_size": shape.vocab_size, "context": context}
    calibration, score, text = settings.calibration_tokens, settings.scored_tokens, None
    if home is None:
        windows = read_windows(settings.calibrate, tokenizer, tokens=calibration + score, field="calibrate", **sizes)
        calibrating, scored = windows.divided(score, calibration)
    else:
        _require_apart(settings)
        text = prepare(settings.calibrate, tokenizer=tokenizer, folder=home / TEXT)
        name = ",".join(settings.calibrate)
        calibrating, scored = (
            windows_of(text, split, name, tokens=most, field="calibrate", named=f"{name}, {split} split,", **sizes)
            for split, most in (("train", calibration), ("test", score))
        )
    second = None
    if settings.also:
        second = read_windows(settings.also, tokenizer, tokens=score, field="also", **sizes)
    for windows in (calibrating, *([second] if second else [])):
        note_skipped(windows.skipped)
    return calibrating, scored, second, text


def _require_apart(settings: PruneSettings) -> None:
    """Raises: UserError where the second text is a part of the first, or the other way round."""
    for second in (Path(name).resolve() for name in settings.also):
        for first in (Path(name).resolve() for name in settings.calibrate):
            if first in (second, *second.parents) or second in first.parents:
                raise UserError(
                    f"{second} and {first} share text, and a recovery would learn what is scored",
                    hint="name text that lies apart",
                    field="also",
                )
