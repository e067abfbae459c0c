"""`evaluate`: the loss of a checkpoint on a text."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.records.answers import Evaluation
from sparsedial.settings import file_names, setting
from sparsedial.showing.notes import note_skipped
from sparsedial.verbs.origin import require_checkpoint

EXAMPLE = "like `sparsedial evaluate runs/train/checkpoint --text FILE`"


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """The checkpoint, and the text to score it on."""

    checkpoint: Path = setting(help="a checkpoint folder", positional=True, example=EXAMPLE)
    text: tuple[str, ...] = setting(
        help="files or folders; all of their text is scored", metavar="FILE,…", parse=file_names, example=EXAMPLE
    )
    context: int | None = setting(None, "tokens per window [the model's own]", "N")


def evaluate(settings: EvaluateSettings) -> Evaluation:
    """Loss in nats per token and bits per byte, over windows of `context` tokens; every token is scored once.

    Raises: UserError for a damaged checkpoint, or a text that is missing, empty or does not fit the model.
    """
    from sparsedial.evaluation.loss import evaluate_all
    from sparsedial.model.checkpoint import load
    from sparsedial.text.prepare import prepare
    from sparsedial.text.tokenizer import load_tokenizer, require_ids

    require_checkpoint(settings.checkpoint)
    model = load(settings.checkpoint)
    context = model.shape.context if settings.context is None else settings.context
    if not 1 <= context <= model.shape.context:
        raise UserError(f"{context} lies outside 1..{model.shape.context}, the context of the model", field="context")
    tokenizer = load_tokenizer(settings.checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        text = prepare(settings.text, tokenizer=tokenizer, folder=Path(folder), whole=True)
        note_skipped(text.facts.skipped)
        require_ids(text.tokens("test"), tokenizer, model.shape.vocab_size)
        scored = evaluate_all(model, text, "test", context=context)
    return Evaluation(
        loss=scored.loss,
        bits_per_byte=scored.bits_per_byte,
        tokens=scored.tokens,
        bytes=scored.bytes,
        context_tokens=context,
        expert_load=scored.expert_load,
        skipped=text.facts.skipped,
    )
