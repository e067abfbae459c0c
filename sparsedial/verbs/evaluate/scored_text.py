"""The loss of a text and of its domains, for `evaluate`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparsedial.errors import UserError
from sparsedial.records.setting import Setting
from sparsedial.records.text import SkippedLines
from sparsedial.shape.shape import Shape
from sparsedial.showing.notes import note, note_skipped
from sparsedial.units import human_count
from sparsedial.verbs.evaluate.settings import EvaluateSettings

if TYPE_CHECKING:
    from sparsedial.evaluation.domains import DomainLosses
    from sparsedial.model.transformer import Transformer
    from sparsedial.text.domains import Domains


@dataclass(frozen=True, kw_only=True)
class LossOfText:
    """A text's losses, with how it was scored."""

    losses: DomainLosses
    context: int
    stride: int
    skipped: SkippedLines


@contextmanager
def prepared_text(folder: Path, shape: Shape, settings: EvaluateSettings) -> Iterator[Domains | None]:
    """The text as a checkpoint's tokenizer reads it; None where no text is given.

    Raises: UserError for a text that is missing, empty or does not fit the model.
    """
    from sparsedial.text.domains import prepare_domains
    from sparsedial.text.tokenizer import load_tokenizer, require_ids

    if not settings.text:
        yield None
        return
    if settings.context is not None and not 1 <= settings.context <= shape.context:
        raise UserError(
            f"{settings.context} lies outside 1..{shape.context}, the context of the model", field="context"
        )
    tokenizer = load_tokenizer(folder)
    with tempfile.TemporaryDirectory() as work:
        domains = prepare_domains(settings.text, tokenizer=tokenizer, folder=Path(work))
        note_skipped(domains.skipped)
        for text in domains.texts.values():
            require_ids(text.tokens("test"), tokenizer, shape.vocab_size)
        yield domains


def text_loss(model: Transformer, domains: Domains, settings: EvaluateSettings, setting: Setting | None) -> LossOfText:
    """The loss of a text and its domains, over windows of `context` tokens that move by `stride`.

    Raises: UserError for a stride outside 1..context.
    """
    from sparsedial.evaluation.domains import evaluate_domains

    note(f"scoring {human_count(domains.tokens)} tokens" + (f" at {setting.name}" if setting else ""))
    context = model.shape.context if settings.context is None else settings.context
    losses = evaluate_domains(model, domains, context=context, stride=settings.stride)
    return LossOfText(losses=losses, context=context, stride=settings.stride or context, skipped=domains.skipped)
