"""Logits as a request changes them before its next token is drawn. V vocabulary."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sparsedial.serving.sampling import Sampling


def adjusted(logits_V: Tensor, sampling: Sampling, written: Mapping[int, int]) -> Tensor:
    """A copy of the logits with the request's bias, and less for tokens that the answer holds already, so many times.

    What was written counts, and not the prompt.

    Source: OpenAI's API reference: mu[j] - c[j] * frequency_penalty - (c[j] > 0) * presence_penalty
    """
    changes = dict(sampling.logit_bias)
    for token, times in written.items():
        less = times * sampling.frequency_penalty + sampling.presence_penalty
        changes[token] = changes.get(token, 0.0) - less
    ids = torch.tensor(list(changes), dtype=torch.int64, device=logits_V.device)
    return logits_V.index_add(0, ids, torch.tensor(list(changes.values()), device=logits_V.device))
