"""Loss of a model on a text: nats per token, bits per byte. W windows, S positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sparsedial.evaluation.scorer import Scorer
from sparsedial.model.router import balance_of
from sparsedial.model.transformer import Routing, Transformer
from sparsedial.records.quantities import Load
from sparsedial.records.recipe import Dtype
from sparsedial.text.prepare import Text
from sparsedial.text.windows import evaluation_windows, whole_windows, window_bytes


@dataclass(frozen=True, kw_only=True)
class TextLoss:
    """A model's loss on a split, with the load of its experts on it."""

    loss: float  # nats per token
    bits_per_byte: float
    tokens: int
    bytes: int
    expert_load: Load | None  # the worst layer's; None for a dense model


def evaluate_text(
    model: Transformer, text: Text, split: str, *, context: int, max_tokens: int | None = None, dtype: Dtype = "float32"
) -> TextLoss:
    """Score whole windows of the context, each token once; with `max_tokens`, evenly spread ones.

    Raises: UserError where the split is shorter than a window.
    """
    windows = evaluation_windows(text, split, context, max_tokens)
    return _scored(model, [windows], window_bytes(text, split, context, max_tokens), dtype)


def evaluate_all(model: Transformer, text: Text, split: str, *, context: int) -> TextLoss:
    """Score every token of a split: windows of the context, and a shorter one for the rest."""
    return _scored(model, whole_windows(text, split, context), text.bytes(split), "float32")


def _scored(model: Transformer, groups: Sequence[np.ndarray], scored_bytes: int, dtype: Dtype) -> TextLoss:
    """Windows in groups of one length each."""
    for layer in model.sparse_feed_forwards:
        layer.load_E.zero_()
    scorer = Scorer(model, routing=Routing(losses=[]), dtype=dtype)
    total = sum(scorer.loss(torch.from_numpy(windows_WS1)) for windows_WS1 in groups)
    tokens = sum(windows_WS1[:, 1:].size for windows_WS1 in groups)
    return TextLoss(
        loss=total / tokens,
        bits_per_byte=total / math.log(2) / scored_bytes,
        tokens=tokens,
        bytes=scored_bytes,
        expert_load=_worst_load(model),
    )


def _worst_load(model: Transformer) -> Load | None:
    loads = [balance_of(layer.load_E) for layer in model.sparse_feed_forwards]
    for layer in model.sparse_feed_forwards:
        layer.load_E.zero_()
    return max(loads, key=lambda load: load.max_over_mean) if loads else None
