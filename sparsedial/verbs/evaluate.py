"""`evaluate`: what a checkpoint loses on a text."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsedial.errors import UserError
from sparsedial.settings import file_names
from sparsedial.verbs.origin import require_checkpoint

EXAMPLE = "like `sparsedial evaluate runs/train/checkpoint --text FILE`"


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Which checkpoint, and on what."""

    checkpoint: Path = field(metadata={"positional": True, "help": "a checkpoint folder", "example": EXAMPLE})
    text: tuple[str, ...] = field(
        metadata={
            "parse": file_names,
            "metavar": "FILE,…",
            "help": "files or folders, all of which is scored",
            "example": EXAMPLE,
        }
    )
    context: int | None = field(default=None, metadata={"metavar": "N", "help": "tokens of a window [the model's own]"})


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Loss in nats per token and bits per byte: windows of the context, each token scored once.

    Raises: UserError for a damaged checkpoint, or a text that is missing, empty or shorter than a window.
    """
    from sparsedial.evaluation.loss import evaluate_text
    from sparsedial.model.checkpoint import load
    from sparsedial.text.prepare import prepare
    from sparsedial.text.tokenizer import load_tokenizer

    require_checkpoint(settings.checkpoint)
    model = load(settings.checkpoint)
    context = model.shape.context if settings.context is None else settings.context
    if not 1 <= context <= model.shape.context:
        raise UserError(f"evaluate: --context {context} lies outside 1..{model.shape.context}, the model's own")
    tokenizer = load_tokenizer(settings.checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        text = prepare(settings.text, tokenizer=tokenizer, folder=Path(folder), whole=True)
        scored = evaluate_text(model, text, "test", context=context)
    return {
        "loss": scored.loss,
        "bits_per_byte": scored.bits_per_byte,
        "tokens": scored.tokens,
        "bytes": scored.bytes,
        "context_tokens": context,
        "expert_load": scored.expert_load,
    }
