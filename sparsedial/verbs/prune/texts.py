"""The texts of `prune` as windows: those that calibrate, those that score, and those of a second text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.pruning.recovery import TEXT
from sparsedial.pruning.second import SecondText, taken_from
from sparsedial.pruning.windows import Windows, context_of, read_windows, windows_of
from sparsedial.shape.shape import Shape
from sparsedial.showing.notes import note, note_skipped
from sparsedial.text.prepare import Text, prepare
from sparsedial.text.tokenizer import load_tokenizer
from sparsedial.verbs.prune.settings import PruneSettings
from sparsedial.verbs.texts_apart import require_apart


@dataclass(frozen=True, kw_only=True, eq=False)
class PruneTexts:
    """The texts as windows."""

    calibrating: Windows
    scored_part: Windows  # of the calibration text
    second: SecondText
    text: Text | None  # the calibration text, split, where it is also trained on: its test split is scored

    @property
    def scored(self) -> dict[str, Windows]:
        """By text; the calibration's first."""
        second = self.second.windows
        return {text.source: text for text in (self.scored_part, *([second] if second else []))}

    @property
    def again(self) -> bool:
        """Whether the calibration is so short that it is scored itself."""
        return self.scored_part is self.calibrating


def texts(settings: PruneSettings, shape: Shape, home: Path | None = None) -> PruneTexts:
    """The windows to read; in `home` is the text that is trained on, if any.

    Where no second text is named, it is a file of the calibration text, which is then left out of that.

    Raises: UserError for a text or a context that does not fit the model.
    """
    context = context_of(shape, settings.context, least=1 + shape.mtp_layers)
    if settings.also == settings.calibrate:
        raise UserError("is the calibration text itself", hint="name text of another kind", field="also")
    harm = "what is scored would decide what stays" if home is None else "a recovery would learn what is scored"
    require_apart(settings.calibrate, settings.also, harm, "also")
    note("reading the text")
    tokenizer = load_tokenizer(settings.checkpoint)
    sizes = {"vocab_size": shape.vocab_size, "context": context}
    calibration, score, text = settings.calibration_tokens, settings.scored_tokens, None
    first, taken = settings.calibrate, None
    if not settings.also:
        first, taken = taken_from(settings.calibrate, tokenizer, tokens=score, **sizes)
    if home is None:
        windows = read_windows(first, tokenizer, tokens=calibration + score, field="calibrate", **sizes)
        calibrating, scored = windows.divided(score, calibration)
    else:
        text = prepare(first, tokenizer=tokenizer, folder=home / TEXT)
        name = ",".join(settings.calibrate)
        calibrating, scored = (
            windows_of(text, split, name, tokens=most, field="calibrate", named=f"{name}, {split} split,", **sizes)
            for split, most in (("train", calibration), ("test", score))
        )
    second = taken or SecondText(windows=read_windows(settings.also, tokenizer, tokens=score, field="also", **sizes))
    for windows in (calibrating, *([second.windows] if second.windows else [])):
        note_skipped(windows.skipped)
    _note_taken(second)
    return PruneTexts(calibrating=calibrating, scored_part=scored, second=second, text=text)


def _note_taken(second: SecondText) -> None:
    """Say which file of the calibration text is scored as the second one."""
    if second.windows and second.taken:
        note(
            f"{second.windows.source} is left out of the calibration and scored as the second text: it differs most"
            " from the other files; --also names another"
        )
