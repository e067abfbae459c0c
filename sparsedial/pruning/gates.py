"""What the neurons of dense layers show on a text: the weights of their scores, and two thresholds for each share.

B sequences, S positions, T tokens (B*S), D d_model, F neurons of a layer, N shares.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sparsedial.kernels.fused import rms_norm
from sparsedial.model.cache import Place
from sparsedial.model.gates import SHARES, Gates, shares_of_parts
from sparsedial.model.router import Routing
from sparsedial.model.transformer import Block, DenseFeedForward, Transformer
from sparsedial.pruning.in_turn import Passage

MOST_SCORES = 1 << 19  # of a layer that are sorted, again for each share; of more, those of evenly spread tokens


class Looking:
    """A dense layer that computes as always, and keeps what its gates show."""

    def __init__(self, block: Block, part: DenseFeedForward, every: int) -> None:
        """Gates and ups are kept of each so-many-th token."""
        self._block, self._part, self._every = block, part, every
        self._gates: list[Tensor] = []  # |silu(gate)|, each [T, F]
        self._ups: list[Tensor] = []  # |up|
        self._ups_F, self._tokens = torch.zeros(len(part.w_out_FD), dtype=torch.float64), 0

    def __call__(self, x_BSD: Tensor, place: Place) -> Tensor:
        block, part = self._block, self._part
        x_BSD = block.attention(x_BSD, block.attention_norm_D, place)
        h_BSH = rms_norm(x_BSD, block.feed_forward_norm_D, block.eps) @ part.w_in_DH
        gate_BSF, up_BSF = h_BSH.chunk(2, dim=-1)
        silu_BSF = functional.silu(gate_BSF)
        for seen, values_BSF in ((self._gates, silu_BSF), (self._ups, up_BSF)):
            seen.append(values_BSF.flatten(0, 1)[:: self._every].abs().float().cpu())
        self._ups_F += up_BSF.abs().sum((0, 1)).double().cpu()
        self._tokens += up_BSF.shape[0] * up_BSF.shape[1]
        return x_BSD + (silu_BSF * up_BSF) @ part.w_out_FD

    def found(self) -> tuple[Tensor, Tensor]:
        """The weights of scores, and the thresholds of all shares. Shapes: [2, F] and [2, N]"""
        norm_F = self._part.w_out_FD.detach().float().norm(dim=1).cpu()
        gate_F = (norm_F * (self._ups_F / self._tokens)).float()
        gates_TF = torch.cat(self._gates)
        opening, written = (gates_TF * gate_F).numpy(), (gates_TF * torch.cat(self._ups) * norm_F).numpy()
        least = [_least(opening, written, *shares_of_parts(share)) for share in SHARES[:-1]]
        return torch.stack([gate_F, norm_F]), torch.tensor([*least, (0.0, 0.0)]).t()


def _least(opening_TF: np.ndarray, written_TF: np.ndarray, ups: float, downs: float) -> tuple[float, float]:
    """The thresholds of gates and of what is written, for the shares of ups and of downs that are read."""
    least_gate = _reached_by(opening_TF, ups)
    return least_gate, _reached_by(np.where(opening_TF >= least_gate, written_TF, 0), downs)


def _reached_by(scores_TF: np.ndarray, share: float) -> float:
    """The value that this share of scores reaches."""
    at = round((1 - share) * scores_TF.size)
    return float(np.partition(scores_TF, at, axis=None)[at])


@torch.no_grad()
def measured_gates(model: Transformer, windows_WS1: Tensor) -> Gates:
    """The gates of a model's dense layers on some windows; each layer reads what the whole layers before it write.

    Shapes: windows [W, S+1]
    """
    weights: dict[int, Tensor] = {}
    thresholds: dict[int, Tensor] = {}
    passage = Passage(model, windows_WS1)
    for turn in passage.turns():
        part = turn.block.feed_forward
        if isinstance(part, DenseFeedForward):
            every = -(-passage.tokens * len(part.w_out_FD) // MOST_SCORES)
            look = Looking(turn.block, part, every)
            turn.pass_on(look)
            weights[turn.number], thresholds[turn.number] = look.found()
        else:
            turn.pass_on(partial(turn.block, routing=Routing()))
    return Gates(weights=weights, thresholds=thresholds)
