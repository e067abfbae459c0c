"""The windows of a text that are scored, and whether a text has enough of them."""

from __future__ import annotations

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
        _scored_starts(text, split, context, None)


def evaluation_windows(text: Text, split: str, context: int, max_tokens: int | None = None) -> np.ndarray:
    """The windows that score a split: side by side, so that each token is scored once.

    With `max_tokens`, as many evenly spread windows as hold that many tokens. What follows the last whole window is
    not scored.

    Shapes:  int64 [windows, context + 1]; the first token of each is only read
    Raises:  UserError where the split is shorter than a window.
    """
    starts = _scored_starts(text, split, context, max_tokens)
    return sliding_window_view(text.tokens(split), context + 1)[starts].astype(np.int64)


def window_bytes(text: Text, split: str, context: int, max_tokens: int | None = None) -> int:
    """The bytes of text that the scored tokens of `evaluation_windows` stand for; an end token stands for none."""
    starts = _scored_starts(text, split, context, max_tokens)
    if text.tokenizer.backend is None:
        scored = sliding_window_view(text.tokens(split)[1:], context)[starts]
        return int(np.count_nonzero(scored != text.tokenizer.end_token))
    if split not in text.lengths:
        raise UserError(f"text: the bytes of {split} tokens are not kept", hint="score validation or test")
    return int(sliding_window_view(text.lengths[split][1:], context)[starts].sum(dtype=np.int64))


def whole_windows(text: Text, split: str, context: int) -> list[np.ndarray]:
    """The windows that score all of a split: those of the context, and a shorter one for the rest.

    Shapes: each int64 [windows, context + 1]; the first token of each window is only read
    """
    tokens = text.tokens(split)
    end = (len(tokens) - 1) // context * context  # the token that the whole windows end with
    groups = [sliding_window_view(tokens, context + 1)[:end:context]] if end else []
    if end < len(tokens) - 1:
        groups.append(tokens[np.newaxis, end:])
    return [windows.astype(np.int64) for windows in groups]


def _scored_starts(text: Text, split: str, context: int, max_tokens: int | None) -> np.ndarray:
    count = (len(text.tokens(split)) - 1) // context
    if count < 1:
        raise UserError(
            f"text: {len(text.tokens(split))} {split} tokens are less than one window of {context}",
            hint="give more text, or a smaller recipe.context",
        )
    kept = count if max_tokens is None else min(count, max(1, max_tokens // context))
    return np.arange(kept, dtype=np.int64) * count // kept * context
