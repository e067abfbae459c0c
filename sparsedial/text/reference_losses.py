"""A reference model's loss of every train token, one byte each, in a file beside the tokens.

Windows run across documents, so a loss belongs to a position of the split. B sequences, S positions, T train tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sparsedial.errors import UserError
from sparsedial.records.record import try_read
from sparsedial.records.token_selection import REFERENCE_FILE, ReferenceLossesFile, TokenSelection
from sparsedial.store import Fault
from sparsedial.text.prepare import Text
from sparsedial.text.shards import BYTE, MAKE_AGAIN, Column, Stored

BYTES_FILE = "train.reference.bin"
STEP_NATS = 1 / 16  # so that a byte reaches 15.9 nats, and rounding changes a loss by at most 1/32 nat
MOST = 255


@dataclass(frozen=True, kw_only=True, eq=False)
class ReferenceLosses:
    """The stored losses, mapped from disk, and what is known of them."""

    facts: ReferenceLossesFile
    bytes_T: np.ndarray  # a position's is that of its own token, given those before it

    def of_windows(self, starts: np.ndarray, context: int) -> np.ndarray:
        """The losses of the tokens that windows predict: all but the first of each. `starts` are their first tokens.

        Shapes: float32 [B, S]
        Units:  nats
        """
        places_BS = starts[:, np.newaxis] + 1 + np.arange(context)
        return as_nats(self.bytes_T[places_BS])


@dataclass(frozen=True, kw_only=True)
class Written:
    """What is known of losses once their bytes are in place."""

    tokens: int
    loss: float  # mean, nats per token
    tokens_above: int
    sha256: str


def as_bytes(nats: np.ndarray) -> np.ndarray:
    """Losses as bytes; what is above the largest becomes the largest."""
    return np.clip(np.rint(nats / STEP_NATS), 0, MOST).astype(BYTE)


def as_nats(stored: np.ndarray) -> np.ndarray:
    """The losses that bytes stand for. Units: nats"""
    return stored.astype(np.float32) * np.float32(STEP_NATS)


def write_losses(text: Text, losses: Iterable[np.ndarray]) -> Written:
    """Store the loss of each train token after the first, in order; the first token has no loss, and a byte of 0.

    Raises: UserError where a loss is not a number, or the file cannot be written; ValueError for another count.
    """
    column, total, above = Column(text.folder / BYTES_FILE, BYTE), 0.0, 0
    try:
        column.write(np.zeros(1))
        for nats in losses:
            if np.isnan(nats).any():
                raise UserError("the reference model's loss is not a number", hint="give another", field="reference")
            total += float(nats.sum(dtype=np.float64))
            above += int((nats > (MOST + 0.5) * STEP_NATS).sum())
            column.write(as_bytes(nats))
        if column.count != text.train_tokens:
            raise ValueError(f"{column.count} losses for {text.train_tokens} tokens")
        return Written(
            tokens=column.count, loss=total / max(1, column.count - 1), tokens_above=above, sha256=column.close()
        )
    finally:
        column.discard()


def try_losses(text: Text, *, verify: bool = True) -> ReferenceLosses | Fault:
    """The losses beside a text's tokens, or why they cannot be used; `verify` compares their digest."""
    facts = try_read(text.folder / REFERENCE_FILE, ReferenceLossesFile)
    if isinstance(facts, Fault):
        return facts
    if facts.text_digest != text.digest:
        return Fault(f"{text.folder / REFERENCE_FILE}: losses of another text", MAKE_AGAIN)
    stored = Stored(text.folder / BYTES_FILE, facts.sha256, text.train_tokens)
    return stored.fault(verify) or ReferenceLosses(facts=facts, bytes_T=stored.mapped())


def open_losses(text: Text, selection: TokenSelection) -> ReferenceLosses:
    """The losses that a run selects its tokens by.

    Raises: UserError where they are missing, cut short, or of another text or reference model.
    """
    found = try_losses(text, verify=False)
    if isinstance(found, Fault):
        raise found.error()
    if found.facts.sha256 != selection.losses_sha256:
        raise UserError(f"{text.folder / BYTES_FILE}: losses of another reference model", hint=MAKE_AGAIN)
    return found
