"""`generate`: continue a prompt with a checkpoint."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsedial.errors import UserError
from sparsedial.verbs.origin import require_checkpoint

EXAMPLE = "like `sparsedial generate runs/train/checkpoint 'Once upon a time'`"
MOST_TOKENS = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class GenerateSettings:
    """Which checkpoint, what it continues, and how tokens are drawn."""

    checkpoint: Path = field(metadata={"positional": True, "help": "a checkpoint folder", "example": EXAMPLE})
    prompt: str = field(
        metadata={"positional": True, "any_words": True, "help": "the text to continue", "example": EXAMPLE}
    )
    tokens: int = field(default=200, metadata={"metavar": "N", "help": "most new tokens"})
    temperature: float = field(default=0.8, metadata={"metavar": "T", "help": "0 takes the likeliest token"})
    top_k: int | None = field(default=None, metadata={"metavar": "K", "help": "draw from the K likeliest tokens"})
    top_p: float = field(
        default=1.0, metadata={"metavar": "P", "help": "draw from the likeliest tokens up to this share"}
    )
    seed: int = field(default=0, metadata={"metavar": "N", "help": "of the drawing"})
    speculate: bool = field(
        default=False,
        metadata={"help": "draft by multi-token prediction: the likeliest text up to rounding, in fewer passes"},
    )

    def __post_init__(self) -> None:
        if not 1 <= self.tokens <= MOST_TOKENS:
            raise UserError(f"generate: --tokens {self.tokens} lies outside 1..{MOST_TOKENS:,}")
        if self.speculate and self.temperature:
            raise UserError(
                f"generate: --speculate gives the likeliest text, not one drawn at temperature {self.temperature:g}",
                hint="add --temperature 0",
            )


def generate(settings: GenerateSettings) -> dict[str, Any]:
    """Continue a prompt, token by token with a cache.

    Raises: UserError for a damaged checkpoint, an empty prompt, or settings outside their range.
    """
    from sparsedial.model.checkpoint import load
    from sparsedial.serving.generation import Sampling
    from sparsedial.serving.generation import generate as generate_ids
    from sparsedial.serving.speculation import Drafts, speculate
    from sparsedial.text.tokenizer import load_tokenizer

    sampling = Sampling(
        temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p, seed=settings.seed
    )
    require_checkpoint(settings.checkpoint)
    model = load(settings.checkpoint)
    tokenizer = load_tokenizer(settings.checkpoint)
    try:
        written = settings.prompt.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"generate: the prompt is not UTF-8 from its character {error.start + 1} on") from error
    prompt = tokenizer.encode(written).tolist()
    began = time.perf_counter()
    drafts = Drafts()
    if settings.speculate:
        new = list(speculate(model, prompt, settings.tokens, tokenizer.end_token, drafts))
    else:
        new = list(generate_ids(model, prompt, settings.tokens, sampling, tokenizer.end_token))
    return {
        "prompt": settings.prompt,
        "text": tokenizer.decode(new),
        "prompt_tokens": len(prompt),
        "tokens": len(new),
        "seconds": time.perf_counter() - began,
        "drafts": {"made": drafts.made, "accepted": drafts.accepted} if settings.speculate else None,
    }
