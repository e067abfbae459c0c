"""Loss of a model on a text: nats per token, bits per byte. W windows, S positions, T scored tokens of the text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparsedial.evaluation.scorer import Scorer, windows_at_once
from sparsedial.model.router import balance_of, same_top_k
from sparsedial.model.transformer import Routing, Transformer
from sparsedial.records.quantities import Load
from sparsedial.records.recipe import Dtype
from sparsedial.text.prepare import Text
from sparsedial.text.windows import Windows, evaluation_windows, whole_windows, window_bytes
from sparsedial.training.ranks import ALONE, Alone, Ranks


@dataclass(frozen=True, kw_only=True)
class TextLoss:
    """A model's loss on a split, with the load of its experts on it."""

    loss: float  # nats per token
    bits_per_byte: float
    tokens: int
    bytes: int
    expert_load: Load | None  # the worst layer's; None for a dense model


@dataclass(frozen=True)
class TokenLosses:
    """The loss of each token of a text after its first one."""

    total: float  # nats
    nats_T: np.ndarray


def evaluate_text(
    model: Transformer,
    text: Text,
    split: str,
    *,
    context: int,
    max_tokens: int | None = None,
    dtype: Dtype = "float32",
    top_k: int | None = None,
    ranks: Alone | Ranks = ALONE,
) -> TextLoss:
    """Score whole windows of the context, each token once; with `max_tokens`, evenly spread ones.

    With `top_k` tokens visit at most that many experts. Of several ranks each scores a share of the windows.

    Raises: UserError where the split is shorter than a window.
    """
    windows_WS1 = evaluation_windows(text, split, context, max_tokens)
    scorer, own_WS1 = counting_scorer(model, dtype, top_k), windows_WS1[ranks.index :: ranks.count]
    own = scorer.loss(torch.from_numpy(own_WS1)) if len(own_WS1) else 0.0  # there may be fewer windows than ranks
    (total,) = ranks.sums([own])
    ranks.add_up([layer.load_E for layer in model.sparse_feed_forwards])
    return _text_loss(model, total, windows_WS1[:, 1:].size, window_bytes(text, split, context, max_tokens))


def token_losses(scorer: Scorer, text: Text, split: str, *, context: int, stride: int | None = None) -> TokenLosses:
    """The loss of each token of a split, in windows of the context that move by the stride (the context by default).

    Raises: UserError for a stride outside 1..context.
    """
    total, nats = 0.0, []
    for windows in whole_windows(text, split, context, stride):
        for ids_BS1 in batches(windows):
            batch, nats_BS = scorer.losses(ids_BS1, windows.last)
            total += batch
            nats.append(nats_BS.flatten().cpu().numpy())
    return TokenLosses(total, np.concatenate(nats))


def batches(windows: Windows) -> Iterator[Tensor]:
    """A few windows at a time as numbers of their own: all of them may be many times as large as the text."""
    count = windows_at_once(windows.ids.shape[1])
    for start in range(0, len(windows.ids), count):
        yield torch.from_numpy(windows.ids[start : start + count].astype(np.int64))


def _text_loss(model: Transformer, total: float, tokens: int, scored_bytes: int) -> TextLoss:
    return TextLoss(
        loss=total / tokens,
        bits_per_byte=bits_per_byte(total, scored_bytes),
        tokens=tokens,
        bytes=scored_bytes,
        expert_load=worst_load(model),
    )


def bits_per_byte(total: float, scored_bytes: int) -> float:
    """A summed loss in nats as bits, divided by the bytes that its tokens stand for."""
    return total / math.log(2) / scored_bytes


def counting_scorer(model: Transformer, dtype: Dtype = "float32", top_k: int | None = None) -> Scorer:
    """A scorer that counts its experts' loads, from zero on; `top_k` is how many a token visits at most."""
    for layer in model.sparse_feed_forwards:
        layer.load_E.zero_()
    top_k_LB = None if top_k is None else same_top_k(top_k, model.shape, model.embedding_VD.device)
    return Scorer(model, routing=Routing(losses=[], top_k_LB=top_k_LB), dtype=dtype)


def worst_load(model: Transformer) -> Load | None:
    """The load of the layer whose experts are least evenly used, since a counting scorer was made; None if dense."""
    loads = [balance_of(layer.load_E) for layer in model.sparse_feed_forwards]
    for layer in model.sparse_feed_forwards:
        layer.load_E.zero_()
    return max(loads, key=lambda load: load.max_over_mean) if loads else None
