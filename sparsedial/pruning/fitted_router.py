"""A router made for experts that are there already: it tells from the stream how much each of them would write.

T tokens, D d_model, E experts.
"""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 60  # of the minimiser
RIDGE = 0.1  # the strength of the prior that logits are small, over that of the tokens for each weight


def fitted_router(x_TD: Tensor, written_TE: Tensor) -> Tensor:
    """The weights of a softmax router whose shares are nearest to those of what experts write, by cross-entropy.

    A softmax regression: convex, so the answer does not depend on a beginning. Its logits are linear, and what experts
    write spans orders of magnitude, as exponentials do.

    Shapes: the normed stream and squared norms of the experts' outputs to [D, E]
    """
    share_TE = written_TE / written_TE.sum(1, keepdim=True).clamp(min=torch.finfo(written_TE.dtype).tiny)
    size_D = x_TD.square().mean(0).sqrt().clamp(min=1e-6)
    x_TD = x_TD / size_D
    tokens, d_model = x_TD.shape
    w_DE = torch.zeros(d_model, written_TE.shape[1], requires_grad=True)
    minimiser = torch.optim.LBFGS([w_DE], max_iter=STEPS, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        minimiser.zero_grad()
        entropy = -(share_TE * (x_TD @ w_DE).log_softmax(1)).sum(1).mean()
        total = entropy + RIDGE * d_model / tokens / 2 * w_DE.square().sum()
        total.backward()
        return total

    minimiser.step(loss)  # type: ignore[arg-type]
    return w_DE.detach() / size_D[:, None]
