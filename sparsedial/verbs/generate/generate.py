"""`generate`: continue a prompt with a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sparsedial.machine.energy import long_period, spent
from sparsedial.records.answers import DraftCounts, Generation
from sparsedial.records.setting import Setting
from sparsedial.showing.notes import note
from sparsedial.verbs.asked_setting import PACE, asked_setting, note_dtype
from sparsedial.verbs.generate.settings import GenerateSettings
from sparsedial.verbs.origin import require_checkpoint

if TYPE_CHECKING:
    from sparsedial.text.tokenizer import Tokenizer


def generate(settings: GenerateSettings, say: Callable[[str], object] | None = None) -> Generation:
    """Continue a prompt token by token, with a cache.

    `say` gets the prompt, or nothing of a chat's, and then the text piece by piece as it comes.

    Raises: UserError for a damaged checkpoint, an empty prompt, or settings outside their range.
    """
    from sparsedial.serving.sampling import Sampling

    sampling = Sampling(
        temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p, seed=settings.seed
    )
    require_checkpoint(settings.checkpoint)
    from torch import get_num_threads

    from sparsedial.kernels.metering import meter
    from sparsedial.model.checkpoint import load_as_stored
    from sparsedial.model.decoder import prepare
    from sparsedial.model.gates import gates_of
    from sparsedial.model.narrow import weights_dtype
    from sparsedial.model.turned import at_setting
    from sparsedial.serving.ending import vocabulary_of
    from sparsedial.serving.generation import generate as generate_ids
    from sparsedial.serving.speculation import Drafts, speculate
    from sparsedial.text.decoding import stream_text
    from sparsedial.text.tokenizer import load_tokenizer

    whole = load_as_stored(settings.checkpoint, settings.dtype)
    dtype = weights_dtype(whole)
    turned, reason = asked_setting(settings.checkpoint, whole.shape, settings.setting, **settings.budgets)
    if any(settings.budgets[kind] is not None for kind in PACE):
        note_dtype(settings.checkpoint, dtype)
    model = prepare(at_setting(whole, turned, gates_of(settings.checkpoint, whole.shape, [turned])))
    tokenizer = load_tokenizer(settings.checkpoint)
    vocabulary = vocabulary_of(settings.checkpoint, tokenizer, model.shape.vocab_size)
    prompt, drafts = _ids(settings, tokenizer, model.shape.vocab_size), Drafts()
    _note_length(len(prompt), model.shape.context)
    power = meter(model.embedding_VD.device.type, get_num_threads())
    began = time.perf_counter()
    with long_period(power):
        if settings.speculate:
            new = speculate(model, prompt, settings.tokens, vocabulary, drafts)
        else:
            new = generate_ids(model, prompt, settings.tokens, sampling, vocabulary)
        drawn: list[int] = []
        pieces = stream_text(tokenizer, prompt, _kept(new, drawn))
        text = _said(pieces, "" if settings.chat else settings.prompt, say)
    seconds = time.perf_counter() - began
    position = Setting.of(turned, whole.shape)
    return Generation(
        prompt=settings.prompt,
        text=text,
        prompt_tokens=len(prompt),
        tokens=len(drawn),
        seconds=seconds,
        dtype=dtype,
        drafts=DraftCounts(made=drafts.made, accepted=drafts.accepted) if settings.speculate else None,
        setting=position,
        setting_reason=reason,
        active_parameters=position.active_parameters,
        joules=spent(power, power.joules(seconds)),
    )


def _note_length(tokens: int, context: int) -> None:
    """Say that the beginning of a prompt is not read."""
    if tokens > context:
        note(f"note: the prompt has {tokens:,} tokens, and the model reads the last {context:,} of them, its context")


def _ids(settings: GenerateSettings, tokenizer: Tokenizer, vocab_size: int) -> list[int]:
    """The tokens of the prompt, or of the chat that it begins."""
    from sparsedial.text.prompts import prompts_of
    from sparsedial.text.tokenizer import require_ids

    prompts = prompts_of(settings.checkpoint, tokenizer)
    written = prompts.chat(settings.prompt) if settings.chat else settings.prompt
    ids = prompts.encode(written, whole=settings.chat)
    require_ids(ids, tokenizer, vocab_size)
    return ids.tolist()


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
