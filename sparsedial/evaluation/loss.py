"""Loss of a model on a text: nats per token, bits per byte."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from sparsedial.model.router import balance_of
from sparsedial.model.transformer import Routing, Transformer
from sparsedial.text.prepare import Text
from sparsedial.text.windows import evaluation_windows, window_bytes

TOKENS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class TextLoss:
    """What a model loses on a split, with the load of its experts on it."""

    loss: float  # nats per token
    bits_per_byte: float
    tokens: int
    bytes: int
    expert_load: dict[str, float] | None  # the worst layer's; None for a dense model


@torch.no_grad()
def evaluate_text(
    model: Transformer, text: Text, split: str, *, context: int, max_tokens: int | None = None, dtype: str = "float32"
) -> TextLoss:
    """Score windows of the context, each token once.

    Raises: UserError where the split is shorter than a window.
    """
    windows_WS1 = torch.from_numpy(evaluation_windows(text, split, context, max_tokens))
    device = model.embedding_VD.device
    routing = Routing(losses=[])
    total = 0.0
    for layer in model.sparse_feed_forwards:
        layer.load_E.zero_()
    for ids_BS1 in windows_WS1.split(max(1, TOKENS_AT_ONCE // context)):
        ids_BS1 = ids_BS1.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
            logits_BSV = model(ids_BS1[:, :-1], routing=routing)
        total += float(
            functional.cross_entropy(logits_BSV.flatten(0, 1).float(), ids_BS1[:, 1:].flatten(), reduction="sum")
        )
    tokens = windows_WS1[:, 1:].numel()
    scored_bytes = window_bytes(text, split, context, max_tokens)
    return TextLoss(
        loss=total / tokens,
        bits_per_byte=total / math.log(2) / scored_bytes,
        tokens=tokens,
        bytes=scored_bytes,
        expert_load=_worst_load(model),
    )


def _worst_load(model: Transformer) -> dict[str, float] | None:
    loads = [balance_of(layer.load_E) for layer in model.sparse_feed_forwards]
    for layer in model.sparse_feed_forwards:
        layer.load_E.zero_()
    return max(loads, key=lambda load: load["max_over_mean"]) if loads else None
