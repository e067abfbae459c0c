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

MOST_SCORES = 1 << 19  # of a layer that are sorted; of more, those of evenly spread tokens


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
        opening, written = gates_TF * gate_F, gates_TF * torch.cat(self._ups) * norm_F
        least = _least(opening.flatten().numpy(), written.flatten().numpy())
        return torch.stack([gate_F, norm_F]), torch.from_numpy(least)


def _least(opening: np.ndarray, written: np.ndarray) -> np.ndarray:
    """The thresholds that the shares of ups and of downs reach, for all shares: of scores of gates and of what is
    written, neuron by neuron of all tokens. Shapes: to [2, N]
    """
    order = np.argsort(written)[::-1]
    opening, written = opening[order], written[order]  # what writes most comes first
    rising, found = np.sort(opening), np.zeros((2, len(SHARES)), np.float32)  # the last share is all
    for at, share in enumerate(SHARES[:-1]):
        ups, downs = (round(part * len(written)) for part in shares_of_parts(share))
        found[0, at] = rising[-ups]
        open_so_far = np.cumsum(opening >= rising[-ups], dtype=np.int32)
        found[1, at] = written[min(len(written) - 1, np.searchsorted(open_so_far, downs))]
    return found


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
