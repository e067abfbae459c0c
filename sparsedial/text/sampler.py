"""Which windows of a text each training step and rank learns from."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sparsedial.errors import UserError
from sparsedial.text.permutation import mix, permuted
from sparsedial.text.prepare import Text

BLOCK_WINDOWS = 4096  # windows whose first tokens are computed at once and kept: a step then costs a gather


def share_of(sequences: int, ranks: int) -> int:
    """The sequences of a batch that each rank learns from.

    Raises: UserError where the ranks cannot divide the batch evenly.
    """
    if ranks < 1 or sequences % ranks:
        raise UserError(
            f"a batch of {sequences} sequences cannot be divided evenly among {ranks} ranks",
            hint="make <recipe.batch> a multiple of the number of ranks",
        )
    return sequences // ranks


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """The batches of a run: a function of these values, the step and the rank, so that resuming is exact.

    Within an epoch each window comes once, in an order and with a first token drawn from seed and epoch; windows run
    across documents. The ranks' batches, one after the other, are that of a single rank.

    Raises: UserError where the train split holds less than a batch, or the ranks cannot divide a batch evenly.
    """

    text: Text
    seed: int
    sequences: int  # of a step, over all ranks
    context: int
    ranks: int = 1

    def __post_init__(self) -> None:
        if self.windows_per_epoch < self.sequences:
            raise UserError(
                f"text: {self.text.train_tokens} train tokens are less than one batch of {self.sequences} windows of"
                f" {self.context} tokens",
                hint="give more text, or a smaller recipe.context",
            )
        share_of(self.sequences, self.ranks)

    @property
    def windows_per_epoch(self) -> int:
        """Windows in one pass through the train split: one fewer than fit, so that the first may start anywhere."""
        return (self.text.train_tokens - self.context) // self.context

    def batch(self, step: int, rank: int = 0) -> np.ndarray:
        """The windows that a rank learns from in a step; the last token of each is only predicted.

        Shapes: int64 [sequences / ranks, context + 1]
        """
        return _all_windows(self.text, self.context)[self.first_tokens(step, rank)].astype(np.int64)

    def first_tokens(self, step: int, rank: int = 0) -> np.ndarray:
        """Where in the train split each window of a batch begins; other data kept by position are read there too.

        Shapes: int64 [sequences / ranks]
        """
        if not 0 <= rank < self.ranks:
            raise IndexError(f"rank {rank} of {self.ranks}")
        steps, share = max(1, BLOCK_WINDOWS // self.sequences), self.sequences // self.ranks
        first = step % steps * self.sequences + rank * share
        block = _first_tokens(self.seed, step // steps, steps * self.sequences, self.windows_per_epoch, self.context)
        return block[first : first + share]

    def documents(self, step: int, rank: int = 0) -> list[np.ndarray]:
        """The rows of the text's manifest that each window of a batch reads from, in the order of their tokens.

        Raises: UserError where the text has no manifest.
        """
        rows, firsts, ends = _train_documents(self.text)
        starts = self.first_tokens(step, rank)
        low = np.searchsorted(ends, starts, side="right")  # the first document that ends after a window's beginning
        high = np.searchsorted(firsts, starts + self.context + 1)  # the first that begins after its end
        return [rows[one:other] for one, other in zip(low, high, strict=True)]


@functools.lru_cache(maxsize=4)
def _all_windows(text: Text, context: int) -> np.ndarray:
    """Every window of the train split as a view; making it each time would cost more than the batch."""
    return sliding_window_view(text.tokens("train"), context + 1)


@functools.lru_cache(maxsize=1)
def _train_documents(text: Text) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each document of the train split: its row in the manifest, its first token, and the end token after it."""
    import polars  # slow to import, and training does not need it

    manifest = text.manifest.select("split", "first_token", "tokens").with_row_index("row")
    train = manifest.filter(polars.col("split") == "train").collect()
    rows, firsts, tokens = (train[name].to_numpy().astype(np.int64) for name in ("row", "first_token", "tokens"))
    return rows, firsts, firsts + tokens


@functools.lru_cache(maxsize=32)
def _first_tokens(seed: int, block: int, size: int, windows: int, context: int) -> np.ndarray:
    """First tokens of the windows `block` × `size` to (`block` + 1) × `size` of the training order."""
    numbers = np.arange(block * size, (block + 1) * size, dtype=np.int64)
    starts = np.empty(size, np.int64)
    for epoch in range(int(numbers[0]) // windows, int(numbers[-1]) // windows + 1):
        inside = numbers // windows == epoch
        key = mix(mix(seed % 2**64) + epoch)
        starts[inside] = permuted(numbers[inside] % windows, windows, key) * context + mix(key) % context
    return starts


def repeats(text: Text, tokens: float) -> float:
    """How often training on `tokens` goes through the train split."""
    return tokens / text.train_tokens
