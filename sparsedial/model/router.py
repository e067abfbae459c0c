"""The router: which experts a token visits, with what weight, and the small losses that keep it healthy.

B sequences, S positions, T tokens (B*S), E experts, K chosen, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsedial.errors import UserError
from sparsedial.kernels.fused import fuses
from sparsedial.kernels.reference import visited
from sparsedial.kernels.watched import unreadable
from sparsedial.records.quantities import Load
from sparsedial.shape.shape import Shape
from sparsedial.units import dtype_name

# Computes a layer's chosen experts: its number, x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK to y_TD.
Watch = Callable[[int, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass
class Routing:
    """What the router needs besides its input, and the losses that it leaves for the training loop."""

    balance_weight: float = 0.0
    z_loss_weight: float = 0.0
    losses: list[Tensor] | None = None  # filled while training
    top_k_LB: Tensor | None = None  # experts that a sequence's tokens visit in each layer, or [L, 1] for all alike;
    # None: all that they choose
    kept: Mapping[int, Tensor] | None = None  # by layer, which of its experts are on, [E] of bool; None: all
    watch: Watch | None = None  # takes the place of the kernels, and sees what they compute

    @property
    def compiles(self) -> bool:
        """Whether a kernel that computes a whole layer can take part."""
        return self.kept is None and self.watch is None

    def top_k_T(self, layer: int, sequences: int, positions: int) -> Tensor | None:
        """The experts that each token of a layer visits."""
        if self.top_k_LB is None:
            return None
        return self.top_k_LB[layer].expand(sequences).repeat_interleave(positions)

    def kept_E(self, layer: int) -> Tensor | None:
        """The experts of a layer that are on; None: all."""
        return None if self.kept is None else self.kept[layer]


def choose(scores_TE: Tensor, bias_E: Tensor | None, shape: Shape, top_k: int) -> Tensor:
    """The top_k experts of each token by score plus bias, inside the kept groups, the best first.

    A group's score is the sum of its two largest (sigmoid gates, DeepSeek-V3) or its largest (softmax, DeepSeek-V2).

    Shapes: scores [T, E] to indices [T, K]
    Source: DeepSeek-V3 (arXiv 2412.19437), section 2.1.2
    """
    choice_TE = scores_TE if bias_E is None else scores_TE + bias_E
    if shape.expert_groups > 1:
        grouped = choice_TE.view(len(choice_TE), shape.expert_groups, -1)
        of_group = 2 if shape.gate == "sigmoid" else 1
        group_scores = grouped.topk(min(of_group, grouped.shape[2]), dim=2).values.sum(2)
        kept = group_scores.topk(shape.kept_groups, dim=1).indices
        mask = torch.ones_like(group_scores, dtype=torch.bool).scatter_(1, kept, False)
        choice_TE = grouped.masked_fill(mask.unsqueeze(2), float("-inf")).view_as(choice_TE)
    return choice_TE.topk(top_k, dim=1).indices


def route(
    logits_TE: Tensor,
    bias_E: Tensor | None,
    shape: Shape,
    top_k: int,
    sequences: int,
    balance_weight: float = 0.0,
    z_loss_weight: float = 0.0,
    top_k_T: Tensor | None = None,
    kept_E: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Route every token: chosen experts, their weights, how often each expert was chosen, and the weighted sum of
    balance loss and z-loss.

    With `top_k_T` a token visits only that many of its choices, best first; the others get no weight. A choice that is
    not visited, or that top-p leaves without weight, counts neither for the load nor for the balance loss: both are
    about the experts that a token keeps, as in the paper on top-p.

    Where `kept_E` is false an expert is off: its logit is minus infinity, and no token chooses it.

    Where gates are ones, scores only choose; in the backward pass they are the gates, so that the router learns.

    Shapes: logits [T, E] (fp32), bias [E] or None, top_k [T], kept [E] of bool to chosen [T, K], gates [T, K],
        load [E] of int64, loss []
    Source: balance loss DeepSeek-V3 eq. 17-20 (per sequence, f_i P_i); z-loss ST-MoE (arXiv 2202.08906); top-p, Huang
    et al. 2024 (arXiv 2403.07652)
    """
    if fuses(logits_TE) and kept_E is None:
        from sparsedial.kernels import triton_router

        gate, weights = shape.gate, (balance_weight, z_loss_weight)
        rule = triton_router.Rule(
            top_k,
            sequences,
            gate == "sigmoid",
            shape.normalize_gates,
            gate == "ones",
            shape.routed_scaling,
            *weights,
            shape.expert_groups,
            shape.kept_groups,
            shape.top_p,
        )
        return triton_router.route(logits_TE, bias_E, top_k_T, rule)
    experts = logits_TE.shape[1]
    if kept_E is not None:
        logits_TE = logits_TE.masked_fill(~kept_E, float("-inf"))
        bias_E = (logits_TE.new_zeros(experts) if bias_E is None else bias_E).masked_fill(~kept_E, float("-inf"))
    scores_TE = torch.sigmoid(logits_TE) if shape.gate == "sigmoid" else torch.softmax(logits_TE, 1)
    chosen_TK = choose(scores_TE, bias_E, shape, top_k)
    gates_TK = scores_TE.gather(1, chosen_TK)
    kept_TK = torch.ones_like(gates_TK)
    if top_k_T is not None:
        kept_TK = visited(top_k_T, top_k).to(gates_TK.dtype)
        gates_TK = gates_TK * kept_TK
    if shape.top_p < 1:
        kept_TK = kept_TK * within(gates_TK, shape.top_p)
        gates_TK = gates_TK * kept_TK
    if shape.gate == "ones":
        gates_TK = kept_TK + (gates_TK - gates_TK.detach())  # straight through: its gradient is that of the scores
    elif shape.normalize_gates:
        gates_TK = gates_TK / (gates_TK.sum(1, keepdim=True) + 1e-20)
    load_BE = loads(chosen_TK, kept_TK, experts, sequences)
    share_BE = load_BE * (experts / load_BE.sum(1, keepdim=True))
    mean_BE = (scores_TE / scores_TE.sum(1, keepdim=True)).view(sequences, -1, experts).mean(1)
    balance = (share_BE * mean_BE).sum(1).mean()
    z_loss = torch.logsumexp(logits_TE, 1).square().mean()
    loss = balance_weight * balance + z_loss_weight * z_loss
    return chosen_TK, gates_TK * shape.routed_scaling, load_BE.sum(0).long(), loss


def within(gates_TK: Tensor, share: float) -> Tensor:
    """1 for the fewest of a token's chosen experts whose weights reach a share of the sum, 0 for the rest.

    Source: top-p routing, Huang et al. 2024 (arXiv 2403.07652)
    """
    sorted_TK, order_TK = gates_TK.sort(dim=1, descending=True)
    before_TK = (sorted_TK.cumsum(1) - sorted_TK) / sorted_TK.sum(1, keepdim=True).clamp(min=1e-20)
    return torch.zeros_like(gates_TK).scatter_(1, order_TK, (before_TK < share).to(gates_TK.dtype))


def loads(chosen_TK: Tensor, kept_TK: Tensor, experts: int, sequences: int) -> Tensor:
    """How many of a sequence's kept choices went to each expert. Shapes: to [B, E]"""
    load_BE = torch.zeros(sequences, experts, device=kept_TK.device, dtype=kept_TK.dtype)
    return load_BE.scatter_add_(1, chosen_TK.reshape(sequences, -1), kept_TK.reshape(sequences, -1))


def balance_figures(load_LE: Tensor) -> Tensor:
    """How even loads are: the largest over the mean, the experts without one, the entropy.

    Those of several layers are found together: one by one they are twenty launches each on a GPU.

    Shapes: [..., E] to [..., 3], float64
    """
    experts = load_LE.shape[-1]
    share_LE = load_LE.double() / load_LE.sum(-1, keepdim=True).clamp(min=1)
    entropy_L = -(share_LE * share_LE.clamp(min=1e-30).log()).sum(-1) / math.log(max(2, experts))
    return torch.stack([share_LE.amax(-1) * experts, (load_LE == 0).sum(-1).double(), entropy_L], -1)


def load_of(max_over_mean: float, dead_experts: float, entropy: float) -> Load:
    """The same as numbers."""
    return Load(max_over_mean=max_over_mean, dead_experts=int(dead_experts), entropy=entropy)


def balance_of(load_E: Tensor) -> Load:
    """How even a load is."""
    return load_of(*balance_figures(load_E).tolist())


def bias_after(bias_E: Tensor, load_E: Tensor, rate: float | Tensor) -> Tensor:
    """The routing bias after one step: up where the load is below the mean, down where it is above.

    The step is proportional to the distance from the mean, and at most `rate`: steps of constant length swing around
    the balance instead of settling (measured: largest over mean load 2.3 against 2.9, see LOG.md).

    Source: DeepSeek-V3, section 2.1.2 (no auxiliary loss); the proportion is ours
    """
    load_E = load_E.to(bias_E.dtype)
    relative_E = (load_E / load_E.mean()).nan_to_num(1.0)  # 0/0 where there was no token: nothing to balance
    return bias_E + rate * (1 - relative_E).clamp(-1, 1)


def same_top_k(top_k: int, shape: Shape, device: torch.device) -> Tensor:
    """The same number of experts in every layer, for all sequences. Shapes: to [L, 1]"""
    return torch.full((shape.layers + shape.mtp_layers, 1), top_k, device=device)


def check_top_k(top_k_LB: Tensor, shape: Shape, sequences: int) -> None:
    """Check numbers of experts, one for each layer (multi-token prediction's may be missing) and sequence.

    One column stands for all sequences.

    Raises: UserError where they are not.
    """
    layers = range(shape.layers, shape.layers + shape.mtp_layers + 1)
    fits = top_k_LB.dim() == 2 and len(top_k_LB) in layers and top_k_LB.shape[1] in (1, sequences)
    if not fits or top_k_LB.dtype != torch.int64:
        raise UserError(
            f"model: top_k_LB is {list(top_k_LB.shape)} of {dtype_name(top_k_LB.dtype)}, not int64 for each of"
            f" {shape.layers} layers and {sequences} sequences"
        )
    if unreadable(top_k_LB):
        return
    if int(top_k_LB.min()) < 1:
        raise UserError(f"model: a token visits at least one expert, not {int(top_k_LB.min())}")
