"""The windows of a text that are scored, and whether a text has enough of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sparsedial.errors import UserError
from sparsedial.text.prepare import Text
from sparsedial.text.sampler import Sampler


def require_windows(text: Text, *, batch: int, context: int) -> None:
    """Refuse a text that is too small for one batch of training, or for one window to score.

    Raises: UserError with the sizes.
    """
    Sampler(text=text, seed=0, sequences=batch, context=context)
    for split in ("validation", "test"):
        scored_starts(text, split, context, None)


def evaluation_windows(text: Text, split: str, context: int, max_tokens: int | None = None) -> np.ndarray:
    """The windows that score a split: side by side, so that each token is scored once.

    With `max_tokens`, as many evenly spread windows as hold that many tokens. What follows the last whole window is
    not scored.

    Shapes:  int64 [windows, context + 1]; the first token of each is only read
    Raises:  UserError where the split is shorter than a window.
    """
    starts = scored_starts(text, split, context, max_tokens)
    return sliding_window_view(text.tokens(split), context + 1)[starts].astype(np.int64)


def window_bytes(text: Text, split: str, context: int, max_tokens: int | None = None) -> int:
    """The bytes of text that the scored tokens of `evaluation_windows` stand for; an end token stands for none."""
    return int(bytes_of_windows(text, split, context, scored_starts(text, split, context, max_tokens)).sum())


def bytes_of_windows(text: Text, split: str, context: int, starts: np.ndarray) -> np.ndarray:
    """The bytes of text that each of these windows' scored tokens stand for; an end token stands for none.

    Shapes: first tokens [W] to int64 [W]
    """
    return sliding_window_view(scored_bytes(text, split), context)[starts].sum(axis=1, dtype=np.int64)


def scored_bytes(text: Text, split: str) -> np.ndarray:
    """The bytes of text that each token after the first one stands for; an end token stands for none.

    Raises: UserError for train tokens, whose bytes are kept with the tokenizer `bytes` only.
    """
    if text.tokenizer.backend is None:
        return text.tokens(split)[1:] != text.tokenizer.end_token
    if split not in text.lengths:
        raise UserError(f"text: the bytes of {split} tokens are not kept", hint="score validation or test")
    return text.lengths[split][1:]


class Windows(NamedTuple):
    """Windows of one length, whose last tokens are scored."""

    ids: np.ndarray  # [windows, tokens]; views of the text, as overlapping windows are many times its size
    last: int  # of each window, this many are scored; those before them are only read


def whole_windows(text: Text, split: str, context: int, stride: int | None = None) -> list[Windows]:
    """The windows that score each token of a split once, in order: all of the first window, then `stride` of each.

    A window is `context` tokens and the one that follows them. The first token of the split, an end token, is only
    read. What follows the last whole window is scored in a shorter one. By default the stride is the context.

    Raises: UserError for a stride outside 1..context.
    """
    stride = context if stride is None else stride
    if not 1 <= stride <= context:
        raise UserError(f"{stride} lies outside 1..{context}, the tokens of a window", field="stride")
    tokens = text.tokens(split)
    scored = len(tokens) - 1
    whole = len(range(0, scored - context + 1, stride))
    groups = []
    if whole:
        ids = sliding_window_view(tokens, context + 1)[::stride]
        groups = [Windows(ids, context)] if stride == context else [Windows(ids[:1], context), Windows(ids[1:], stride)]
    rest = scored - (context + (whole - 1) * stride if whole else 0)
    groups.append(Windows(tokens[np.newaxis, whole * stride :], rest))
    return [windows for windows in groups if len(windows.ids) and windows.last]


def protocol(context: int, stride: int, tokens: int) -> str:
    """How the tokens of a text are scored by `whole_windows`, as one sentence."""
    once = f"An end token stands before the first document, and each of {tokens:,} tokens is scored once"
    if tokens <= context:
        return f"{once}, given all that stands before it."
    if stride == context:
        return f"{once}, given what stands before it in its window of {context:,}."
    return (
        f"{once}, in windows of {context:,} that move by {stride:,}: at least {context - stride + 1:,} tokens stand"
        " before each, except in the first window."
    )


def scored_starts(text: Text, split: str, context: int, max_tokens: int | None = None) -> np.ndarray:
    """The first token of each window of `evaluation_windows`, which is only read.

    Shapes: int64 [windows]
    Raises: UserError where the split is shorter than a window.
    """
    count = (len(text.tokens(split)) - 1) // context
    if count < 1:
        raise UserError(
            f"text: {len(text.tokens(split))} {split} tokens are less than one window of {context}",
            hint="give more text, or a smaller recipe.context",
        )
    kept = count if max_tokens is None else min(count, max(1, max_tokens // context))
    return np.arange(kept, dtype=np.int64) * count // kept * context
