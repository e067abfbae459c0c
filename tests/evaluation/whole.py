"""The loss of all of a split, as `evaluate` scores a text without domains."""

from __future__ import annotations

from sparsedial.evaluation.loss import TextLoss, bits_per_byte, counting_scorer, token_losses, worst_load
from sparsedial.model.transformer import Transformer
from sparsedial.text.prepare import Text


def evaluate_all(model: Transformer, text: Text, split: str, *, context: int, stride: int | None = None) -> TextLoss:
    """Score every token of a split once, in windows of the context that move by the stride (the context by default)."""
    losses = token_losses(counting_scorer(model), text, split, context=context, stride=stride)
    return TextLoss(
        loss=losses.total / len(losses.nats_T),
        bits_per_byte=bits_per_byte(losses.total, text.bytes(split)),
        tokens=len(losses.nats_T),
        bytes=text.bytes(split),
        expert_load=worst_load(model),
    )
