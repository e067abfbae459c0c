"""Distillation: a model learns another's distribution over the next token.

B sequences, S positions, D d_model of a model, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sparsedial.model.router import Routing
from sparsedial.model.transformer import Transformer


def towards(teacher: Transformer, student: Transformer, ids_BS1: Tensor) -> Callable[[Tensor], Tensor]:
    """What a student loses on windows of S+1 ids: how far its distribution is from the teacher's, by its own stream.

    Logits of one sequence at a time exist, and are computed anew for its gradient: those of a whole batch would take
    more memory than all else.

    Shapes: ids [B, S+1]; what it gives takes a stream [B, S, D] and returns a scalar, nats per token
    """
    ids_BS = ids_BS1[:, :-1]
    with torch.no_grad():
        theirs_BSD = teacher.stream(ids_BS, teacher.place(ids_BS), Routing())

    def far(theirs_SD: Tensor, ours_SD: Tensor) -> Tensor:
        with torch.no_grad():
            theirs_SV = teacher.logits(theirs_SD, teacher.norm_D)
        return divergence(student.logits(ours_SD, student.norm_D), theirs_SV)

    def main(ours_BSD: Tensor) -> Tensor:
        rows = zip(theirs_BSD, ours_BSD, strict=True)
        return torch.stack(
            [cast(Tensor, checkpoint(far, *pair, use_reentrant=False, preserve_rng_state=False)) for pair in rows]
        ).mean()

    return main


def divergence(ours_SV: Tensor, theirs_SV: Tensor) -> Tensor:
    """The Kullback-Leibler divergence of our distribution from theirs, as logits, in the mean over tokens.

    Units:  nats per token
    Source: Hinton et al. 2015 (arXiv 1503.02531), at temperature 1
    """
    ours, theirs = (functional.log_softmax(logits.float(), -1) for logits in (ours_SV, theirs_SV))
    return functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
