"""Windows of a text: in which order they train, and which ones are scored."""

from __future__ import annotations

import functools

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sparsedial.errors import UserError
from sparsedial.text.prepare import Text

BLOCK_WINDOWS = 4096  # windows whose places are computed at once and kept: one step then costs a gather


def batch(text: Text, *, seed: int, step: int, batch: int, context: int) -> np.ndarray:
    """The windows that training step `step` learns from: a function of its arguments alone, so resuming is exact.

    Within an epoch each window comes once, in an order and with a first token drawn from seed and epoch; windows run
    across documents.

    Shapes:  int64 [batch, context + 1]
    Raises:  UserError where the train split holds less than a batch.
    """
    steps = max(1, BLOCK_WINDOWS // batch)
    starts = _starts(seed, step // steps, steps * batch, batch, context, text.train_tokens)
    place = step % steps * batch
    return _all_windows(text, context)[starts[place : place + batch]].astype(np.int64)


@functools.lru_cache(maxsize=4)
def _all_windows(text: Text, context: int) -> np.ndarray:
    """Every window of the train split as a view: making it anew would cost more than the batch."""
    return sliding_window_view(text.tokens("train"), context + 1)


def repeats(text: Text, tokens: float) -> float:
    """How often training on `tokens` goes through the train split."""
    return tokens / text.train_tokens


def require_windows(text: Text, *, batch: int, context: int) -> None:
    """Refuse a text that is too small for one batch of training, or for one window to score.

    Raises: UserError with the sizes.
    """
    _windows_per_epoch(text.train_tokens, batch, context)
    for split in ("validation", "test"):
        _scored_starts(text, split, context, None)


def _windows_per_epoch(tokens: int, batch: int, context: int) -> int:
    windows = (tokens - context) // context  # one fewer than fit, so that the first may start anywhere in a context
    if windows < batch:
        raise UserError(
            f"text: {tokens} train tokens are less than one batch of {batch} windows of {context} tokens",
            hint="give more text, or a shorter context (of `train` --recipe.context)",
        )
    return windows


@functools.lru_cache(maxsize=32)
def _starts(seed: int, block: int, size: int, batch: int, context: int, tokens: int) -> np.ndarray:
    """First tokens of the windows `block` × `size` to (`block` + 1) × `size` of the training order."""
    windows = _windows_per_epoch(tokens, batch, context)
    numbers = np.arange(block * size, (block + 1) * size, dtype=np.int64)
    starts = np.empty(size, np.int64)
    for epoch in range(int(numbers[0]) // windows, int(numbers[-1]) // windows + 1):
        inside = numbers // windows == epoch
        key = _mix(_mix(seed % 2**64) + epoch)
        starts[inside] = permuted(numbers[inside] % windows, windows, key) * context + _mix(key) % context
    return starts


def permuted(places: np.ndarray, count: int, key: int) -> np.ndarray:
    """Where a permutation of 0..count-1, drawn by `key`, takes these places.

    A Feistel network on pairs (left, right) of about the square root of count, walked on while it leads outside.

    Source:  Black and Rogaway 2002, "Ciphers with arbitrary finite domains"
    """
    wide = max(1, int(np.ceil(np.sqrt(count))))
    high = -(-count // wide)
    result = places.astype(np.uint64)
    outside = np.ones(len(places), bool)
    while outside.any():
        left, right = np.divmod(result[outside], np.uint64(wide))
        for turn in range(4):
            left = (left + _mixed(right, _mix(key + 2 * turn)) % np.uint64(high)) % np.uint64(high)
            right = (right + _mixed(left, _mix(key + 2 * turn + 1)) % np.uint64(wide)) % np.uint64(wide)
        result[outside] = left * np.uint64(wide) + right
        outside = result >= np.uint64(count)
    return result.astype(np.int64)


def _mix(value: int) -> int:
    """SplitMix64's output function: a 64-bit number that looks unrelated to its neighbours'."""
    value = (value + 0x9E3779B97F4A7C15) % 2**64
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
    return value ^ value >> 31


def _mixed(values: np.ndarray, key: int) -> np.ndarray:
    values = (values ^ np.uint64(key)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)


def evaluation_windows(text: Text, split: str, context: int, max_tokens: int | None = None) -> np.ndarray:
    """The windows that score a split: side by side, so that each token is scored once.

    With `max_tokens`, as many evenly spread windows as hold that many tokens. What remains behind the last whole window
    is not scored.

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
        raise UserError(
            f"text: the bytes of {split} tokens are not kept", hint="validation and test are there to score"
        )
    return int(sliding_window_view(text.lengths[split][1:], context)[starts].sum(dtype=np.int64))


def _scored_starts(text: Text, split: str, context: int, max_tokens: int | None) -> np.ndarray:
    count = (len(text.tokens(split)) - 1) // context
    if count < 1:
        raise UserError(
            f"text: {len(text.tokens(split))} {split} tokens are less than one window of {context}",
            hint="give more text, or a shorter context (of `train` --recipe.context)",
        )
    kept = count if max_tokens is None else min(count, max(1, max_tokens // context))
    return np.arange(kept, dtype=np.int64) * count // kept * context
