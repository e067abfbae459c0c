"""`generate`: continue a prompt with a checkpoint."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.records.answers import DraftCounts, Generation
from sparsedial.settings import setting
from sparsedial.verbs.origin import require_checkpoint

EXAMPLE = "like `sparsedial generate runs/train/checkpoint 'Once upon a time'`"
MOST_TOKENS = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class GenerateSettings:
    """The checkpoint, the prompt, and how tokens are sampled."""

    checkpoint: Path = setting(help="a checkpoint folder", positional=True, example=EXAMPLE)
    prompt: str = setting(help="the text to continue", positional=True, any_words=True, example=EXAMPLE)
    tokens: int = setting(200, "maximum number of new tokens", "N")
    temperature: float = setting(0.8, "sampling temperature; 0 always takes the most likely token", "T")
    top_k: int | None = setting(None, "sample from the K most likely tokens", "K")
    top_p: float = setting(1.0, "sample from the most likely tokens up to this total probability", "P")
    seed: int = setting(0, "seed for sampling", "N")
    speculate: bool = setting(
        False, "draft tokens with multi-token prediction: the greedy text (up to rounding) in fewer passes"
    )

    def __post_init__(self) -> None:
        if not 1 <= self.tokens <= MOST_TOKENS:
            raise UserError(f"{self.tokens} lies outside 1..{MOST_TOKENS:,}", field="tokens")
        if self.speculate and self.temperature:
            raise UserError(
                f"gives the greedy text, so it does not go with temperature {self.temperature:g}",
                hint="add <temperature> 0",
                field="speculate",
            )


def generate(settings: GenerateSettings) -> Generation:
    """Continue a prompt token by token, with a cache.

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
        raise UserError(f"the prompt is not valid UTF-8 from character {error.start + 1} on") from error
    prompt = tokenizer.encode(written).tolist()
    began = time.perf_counter()
    drafts = Drafts()
    if settings.speculate:
        new = list(speculate(model, prompt, settings.tokens, tokenizer.end_token, drafts))
    else:
        new = list(generate_ids(model, prompt, settings.tokens, sampling, tokenizer.end_token))
    return Generation(
        prompt=settings.prompt,
        text=tokenizer.decode(new),
        prompt_tokens=len(prompt),
        tokens=len(new),
        seconds=time.perf_counter() - began,
        drafts=DraftCounts(made=drafts.made, accepted=drafts.accepted) if settings.speculate else None,
    )
