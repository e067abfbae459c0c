"""A router made for experts that are there already: it tells from the stream how much each of them would do.

T tokens, D d_model, E experts, N targets.
"""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 0.1  # the strength of the prior that weights are small, over that of the tokens
SILENT = 1e-6  # of a token's whole: an expert that does less does nothing


def fitted_router(x_TD: Tensor, done_TE: Tensor) -> Tensor:
    """The weights of a softmax router whose shares are near to those of what experts do, by squared error of logits.

    What experts do spans orders of magnitude, as exponentials do, so the logits are fitted to its logarithms. What a
    token's experts have in common says nothing of their shares, and is left out. In a real layer this chose as well as
    a softmax regression in a small part of its time; 128 hidden units, or the shared part's activations beside the
    stream, chose no better (LOG.md).

    Shapes: the normed stream and what each expert does, none of it below zero, to [D, E]
    """
    share_TE = done_TE / done_TE.sum(1, keepdim=True).clamp(min=torch.finfo(done_TE.dtype).tiny)
    log_TE = (share_TE + SILENT).log()
    return linear_fit(x_TD, log_TE - log_TE.mean(1, keepdim=True))


def linear_fit(x_TD: Tensor, targets_TN: Tensor) -> Tensor:
    """The weights by which the stream foretells some targets best, by least squares with a prior.

    Channels are first brought to one size, since some are far larger than others.

    Shapes: to [D, N]
    """
    size_D = x_TD.square().mean(0).sqrt().clamp(min=1e-6)
    x_TD = x_TD / size_D
    products_DD = x_TD.t() @ x_TD + RIDGE * len(x_TD) * torch.eye(x_TD.shape[1])
    return torch.linalg.solve(products_DD, x_TD.t() @ targets_TN) / size_D[:, None]
