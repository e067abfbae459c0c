"""A text as windows: some calibrate, others score. W windows, S positions."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from sparsedial.errors import UserError
from sparsedial.records.text import SkippedLines
from sparsedial.shape.shape import Shape
from sparsedial.text.corpus import Corpus
from sparsedial.text.prepare import Text, prepare
from sparsedial.text.tokenizer import Tokenizer, require_ids
from sparsedial.text.windows import bytes_of_windows

MOST_CONTEXT = 2048  # of a window, unless it is asked for
SCORED_SHARE = 5  # at most one in so many windows of a short text scores; the others calibrate


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """Windows of one text."""

    source: str
    digest: str  # of the whole text and its tokenizer
    skipped: SkippedLines
    ids_WS1: np.ndarray  # the first token of each window is only read
    bytes_W: np.ndarray | None  # that the other tokens stand for; None for a train split, of which none is scored

    @property
    def context(self) -> int:
        """Scored tokens of a window."""
        return self.ids_WS1.shape[1] - 1

    @property
    def tokens(self) -> int:
        """Scored tokens of all windows."""
        return len(self.ids_WS1) * self.context

    def pick(self, numbers: np.ndarray) -> Windows:
        """Some of the windows."""
        bytes_W = None if self.bytes_W is None else self.bytes_W[numbers]
        return replace(self, ids_WS1=self.ids_WS1[numbers], bytes_W=bytes_W)

    def divided(self, scored_tokens: int, calibration_tokens: int | None = None) -> tuple[Windows, Windows]:
        """Those that calibrate, and evenly spread ones that score; a single window does both.

        Where the text is shorter than both ask for, or it is not said how many tokens calibrate, a share scores.
        """
        count = len(self.ids_WS1)
        if count == 1:
            return self, self
        asked = None if calibration_tokens is None else (calibration_tokens + scored_tokens) // self.context
        most = count - 1 if asked == count else count // SCORED_SHARE
        scored = spread(count, min(scored_tokens // self.context, most))
        return self.pick(np.setdiff1d(np.arange(count), scored)), self.pick(scored)


def spread(count: int, most: int) -> np.ndarray:
    """At least one and at most so many of `count` numbers, evenly spread."""
    kept = min(count, max(1, most))
    return np.arange(kept) * count // kept


def context_of(shape: Shape, asked: int | None, least: int = 1) -> int:
    """Tokens of a window: what is asked for, else those of the model, at most so many.

    Raises: UserError for a context that the model does not have.
    """
    context = min(shape.context, MOST_CONTEXT) if asked is None else asked
    if not least <= context <= shape.context:
        raise UserError(f"{context} lies outside {least}..{shape.context}, the context of the model", field="context")
    return context


def read_windows(
    sources: Sequence[str] | Corpus, tokenizer: Tokenizer, *, vocab_size: int, context: int, tokens: int, field: str
) -> Windows:
    """Evenly spread windows of a text that hold so many tokens, or all of a shorter one's; none overlap.

    Raises: UserError for a text that is missing, bad, shorter than a window, or does not fit the model.
    """
    source = ",".join(sources.sources if isinstance(sources, Corpus) else sources)
    with tempfile.TemporaryDirectory() as work:
        text = prepare(sources, tokenizer=tokenizer, folder=Path(work), whole=True)
        return windows_of(
            text, "test", source, vocab_size=vocab_size, context=context, tokens=tokens, field=field, named=source
        )


def windows_of(
    text: Text, split: str, source: str, *, vocab_size: int, context: int, tokens: int, field: str, named: str
) -> Windows:
    """Evenly spread windows of one split of a text, as `read_windows`; errors call the split `named`.

    Raises: UserError where the split is shorter than a window, or does not fit the model.
    """
    ids = text.tokens(split)
    require_ids(ids, text.tokenizer, vocab_size)
    count = (len(ids) - 1) // context
    if count < 1:
        raise UserError(
            f"{named} has {len(ids) - 1:,} tokens, less than one window of {context:,}",
            hint="give more text, or a smaller <context>",
            field=field,
        )
    starts = spread(count, tokens // context) * context
    return Windows(
        source=source,
        digest=text.digest,
        skipped=text.facts.skipped,
        ids_WS1=sliding_window_view(ids, context + 1)[starts].astype(np.int64),
        bytes_W=None if split == "train" else bytes_of_windows(text, split, context, starts),
    )
