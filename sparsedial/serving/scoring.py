"""How likely tokens are by the model itself, before anything of a request changes its distribution.

S positions, D d_model, R rows of logits, n rows of a piece, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sparsedial.errors import UserError
from sparsedial.evaluation.scorer import logits_in_pieces
from sparsedial.model.greedy import Vocabulary, require_numbers
from sparsedial.model.transformer import Transformer
from sparsedial.serving.asks import Scored

LEAST = -9999.0  # what is said of a token that cannot come: JSON has no infinity


def scores_of(logits_RV: Tensor, tokens: Sequence[int], top: int, vocabulary: Vocabulary) -> list[Scored]:
    """The log-probability of each row's token, and of so many of the likeliest ones.

    Ids that no token has are none of the likeliest, though the model gives them some probability.

    Raises: UserError for logits that are not numbers.
    """
    shares_RV = logits_RV.float().log_softmax(1)
    own_R = shares_RV.gather(1, torch.tensor(tokens, device=shares_RV.device).unsqueeze(1)).squeeze(1).tolist()
    require_numbers(own_R)
    best = vocabulary.mask(shares_RV).topk(min(top, shares_RV.shape[1] - len(vocabulary.absent)), dim=1)
    rows = zip(tokens, own_R, best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        Scored(token=token, logprob=_said(own), top=tuple(zip(ids, map(_said, values), strict=True)))
        for token, own, ids, values in rows
    ]


def score_drawn(
    logits_V: Tensor | None, token: int | Exception, top: int | None, vocabulary: Vocabulary
) -> Scored | UserError | None:
    """The same of a token that was drawn, or what forbids to say it; None where it is not asked for."""
    if logits_V is None or top is None or isinstance(token, Exception):
        return None
    try:
        return scores_of(logits_V.unsqueeze(0), [token], top, vocabulary)[0]
    except UserError as error:
        return error


def prompt_scores(
    model: Transformer, x_SD: Tensor, tokens: Sequence[int], top: int, vocabulary: Vocabulary
) -> list[Scored]:
    """The same of the tokens that follow the positions of a stream, a piece at a time: logits are large.

    Raises: UserError for logits that are not numbers.
    """
    pieces = logits_in_pieces(model, x_SD.unsqueeze(0), torch.tensor(tokens, device=x_SD.device))
    return [
        scored for logits_nV, tokens_n in pieces for scored in scores_of(logits_nV, tokens_n.tolist(), top, vocabulary)
    ]


def _said(logprob: float) -> float:
    return LEAST if math.isinf(logprob) else logprob
