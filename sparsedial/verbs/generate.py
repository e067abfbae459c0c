"""`generate`: continue a prompt with a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
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
    chat: bool = setting(False, "answer the prompt as the message of a user, by the tokenizer's chat template")
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


def generate(settings: GenerateSettings, say: Callable[[str], object] | None = None) -> Generation:
    """Continue a prompt token by token, with a cache.

    `say` gets the prompt, or nothing of a chat's, and then the text piece by piece as it comes.

    Raises: UserError for a damaged checkpoint, an empty prompt, or settings outside their range.
    """
    from sparsedial.model.checkpoint import load
    from sparsedial.serving.ending import vocabulary_of
    from sparsedial.serving.generation import Sampling
    from sparsedial.serving.generation import generate as generate_ids
    from sparsedial.serving.speculation import Drafts, speculate
    from sparsedial.text.decoding import stream_text
    from sparsedial.text.prompts import prompts_of
    from sparsedial.text.tokenizer import load_tokenizer, require_ids

    sampling = Sampling(
        temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p, seed=settings.seed
    )
    require_checkpoint(settings.checkpoint)
    model = load(settings.checkpoint)
    tokenizer = load_tokenizer(settings.checkpoint)
    vocabulary = vocabulary_of(settings.checkpoint, tokenizer, model.shape.vocab_size)
    prompts = prompts_of(settings.checkpoint, tokenizer)
    written = prompts.chat(settings.prompt) if settings.chat else settings.prompt
    ids = prompts.encode(written, whole=settings.chat)
    require_ids(ids, tokenizer, model.shape.vocab_size)
    prompt, drafts = ids.tolist(), Drafts()
    began = time.perf_counter()
    if settings.speculate:
        new = speculate(model, prompt, settings.tokens, vocabulary, drafts)
    else:
        new = generate_ids(model, prompt, settings.tokens, sampling, vocabulary)
    drawn: list[int] = []
    pieces = stream_text(tokenizer, prompt, _kept(new, drawn))
    text = _said(pieces, "" if settings.chat else settings.prompt, say)
    return Generation(
        prompt=settings.prompt,
        text=text,
        prompt_tokens=len(prompt),
        tokens=len(drawn),
        seconds=time.perf_counter() - began,
        drafts=DraftCounts(made=drafts.made, accepted=drafts.accepted) if settings.speculate else None,
    )


def _kept(tokens: Iterator[int], kept: list[int]) -> Iterator[int]:
    """The same tokens, also put into a list."""
    for token in tokens:
        kept.append(token)
        yield token


def _said(pieces: Iterator[str], before: str, say: Callable[[str], object] | None) -> str:
    """The pieces as one text, each said as it comes, after what comes before; a Ctrl-C ends the line."""
    if say is None:
        return "".join(pieces)
    held: list[str] = []
    say(before)
    try:
        for piece in pieces:
            held.append(piece)
            say(piece)
    except KeyboardInterrupt:
        say("\n")
        raise
    return "".join(held)
