"""The router: which experts a token visits, with what weight, and the small losses that keep it healthy.

B sequences, S positions, T tokens (B*S), E experts, K chosen.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparsedial.kernels import native
from sparsedial.shape.shape import Shape


def choose(scores_TE: Tensor, bias_E: Tensor | None, shape: Shape) -> Tensor:
    """The top_k experts of each token by score plus bias, inside the kept groups.

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
    return choice_TE.topk(shape.top_k, dim=1).indices


def reference_route(
    logits_TE: Tensor,
    bias_E: Tensor | None,
    shape: Shape,
    sequences: int,
    balance_weight: float = 0.0,
    z_loss_weight: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """The readable twin: chosen experts, their weights, and the weighted sum of balance loss and z-loss.

    Shapes: logits [T, E] to chosen [T, K], gates [T, K], loss []
    Source: balance loss DeepSeek-V3 eq. 17-20 (per sequence, f_i P_i); z-loss ST-MoE (arXiv 2202.08906)
    """
    scores_TE = torch.sigmoid(logits_TE) if shape.gate == "sigmoid" else torch.softmax(logits_TE, 1)
    chosen_TK = choose(scores_TE, bias_E, shape)
    gates_TK = scores_TE.gather(1, chosen_TK)
    if shape.normalize_gates:
        gates_TK = gates_TK / (gates_TK.sum(1, keepdim=True) + 1e-20)
    share_BE = load_share(chosen_TK, shape.experts, sequences, logits_TE.dtype)
    mean_BE = (scores_TE / scores_TE.sum(1, keepdim=True)).view(sequences, -1, shape.experts).mean(1)
    balance = (share_BE * mean_BE).sum(1).mean()
    z_loss = torch.logsumexp(logits_TE, 1).square().mean()
    return chosen_TK, gates_TK * shape.routed_scaling, balance_weight * balance + z_loss_weight * z_loss


def load_share(chosen_TK: Tensor, experts: int, sequences: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """f_i of the balance loss: each expert's share of a sequence's choices times E; 1 when even. Shapes: to [B, E]"""
    chosen_BR = chosen_TK.reshape(sequences, -1)
    count_BE = torch.zeros(sequences, experts, device=chosen_TK.device, dtype=dtype)
    count_BE.scatter_add_(1, chosen_BR, torch.ones_like(chosen_BR, dtype=dtype))
    return count_BE * (experts / chosen_BR.shape[1])


class _Route(torch.autograd.Function):
    """`reference_route` in one autograd node; at tiny sizes autograd's own nodes cost more than their arithmetic."""

    @staticmethod
    def forward(
        ctx: Any,
        logits_TE: Tensor,
        bias_E: Tensor | None,
        shape: Shape,
        sequences: int,
        balance: float,
        z_weight: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        sigmoid = shape.gate == "sigmoid"
        normaliser_T1 = torch.logsumexp(logits_TE, 1, keepdim=True)
        scores_TE = torch.sigmoid(logits_TE) if sigmoid else (logits_TE - normaliser_T1).exp_()
        chosen_TK = choose(scores_TE, bias_E, shape)
        picked_TK = scores_TE.gather(1, chosen_TK)
        sum_T1 = picked_TK.sum(1, keepdim=True).add_(1e-20)
        gates_TK = picked_TK / sum_T1 if shape.normalize_gates else picked_TK.clone()
        share_BE = load_share(chosen_TK, shape.experts, sequences, logits_TE.dtype)
        total_T1 = scores_TE.sum(1, keepdim=True) if sigmoid else torch.ones_like(sum_T1)
        share_TE = scores_TE / total_T1
        mean_BE = share_TE.view(sequences, -1, shape.experts).mean(1)
        loss = balance * (share_BE * mean_BE).sum(1).mean() + z_weight * normaliser_T1.square().mean()
        ctx.save_for_backward(
            logits_TE, normaliser_T1, scores_TE, chosen_TK, gates_TK, sum_T1, share_BE, total_T1, share_TE
        )
        ctx.constants = shape, sequences, balance, z_weight
        ctx.mark_non_differentiable(chosen_TK)
        return chosen_TK, gates_TK * shape.routed_scaling, loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor, dgates_TK: Tensor, dloss: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        logits_TE, normaliser_T1, scores_TE, chosen_TK, gates_TK, sum_T1, share_BE, total_T1, share_TE = (
            ctx.saved_tensors
        )
        shape, sequences, balance, z_weight = ctx.constants
        tokens, experts = logits_TE.shape
        dpicked_TK = dgates_TK * shape.routed_scaling
        if shape.normalize_gates:
            dpicked_TK = (dpicked_TK - (dpicked_TK * gates_TK).sum(1, keepdim=True)) / sum_T1
        weight_BE = share_BE * (balance * dloss / tokens)
        inner_TB1 = torch.bmm(share_TE.view(sequences, -1, experts), weight_BE.unsqueeze(2))
        dscores = (weight_BE.unsqueeze(1) - inner_TB1) / total_T1.view(sequences, -1, 1)
        dscores_TE = dscores.view(tokens, experts).scatter_add_(1, chosen_TK, dpicked_TK)
        if shape.gate == "sigmoid":
            dlogits_TE = dscores_TE * scores_TE * (1 - scores_TE)
            probability_TE = (logits_TE - normaliser_T1).exp_()
        else:
            probability_TE = scores_TE
            dlogits_TE = scores_TE * (dscores_TE - (dscores_TE * scores_TE).sum(1, keepdim=True))
        dlogits_TE.addcmul_(probability_TE, normaliser_T1 * (2 * z_weight * dloss / tokens))
        return dlogits_TE, None, None, None, None, None


class _NativeRoute(torch.autograd.Function):
    """The same, compiled; without groups of experts."""

    @staticmethod
    def forward(
        ctx: Any,
        logits_TE: Tensor,
        bias_E: Tensor | None,
        shape: Shape,
        sequences: int,
        balance: float,
        z_weight: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        (tokens, experts), top_k = logits_TE.shape, shape.top_k
        logits_TE = logits_TE.contiguous()
        chosen_TK = torch.empty(tokens, top_k, dtype=torch.long)
        scores_TE, gates_TK = torch.empty_like(logits_TE), logits_TE.new_empty(tokens, top_k)
        rows_3T, kept_2BE = logits_TE.new_empty(3, tokens), logits_TE.new_empty(2, sequences, experts)
        loss = logits_TE.new_empty(())
        sizes = sequences, tokens // sequences, experts, top_k, shape.gate == "sigmoid", shape.normalize_gates
        constants = (*sizes, float(shape.routed_scaling), float(balance), float(z_weight), torch.get_num_threads())
        addresses = [tensor.data_ptr() for tensor in (*rows_3T, *kept_2BE)]
        native.module.route_forward(
            logits_TE.data_ptr(), 0 if bias_E is None else bias_E.data_ptr(), scores_TE.data_ptr(),
            chosen_TK.data_ptr(), gates_TK.data_ptr(), *addresses, loss.data_ptr(), *constants,
        )  # fmt: skip
        ctx.save_for_backward(logits_TE, scores_TE, chosen_TK, gates_TK, rows_3T, kept_2BE)
        ctx.constants = constants
        ctx.mark_non_differentiable(chosen_TK)
        return chosen_TK, gates_TK, loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor, dgates_TK: Tensor, dloss: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        logits_TE, scores_TE, chosen_TK, gates_TK, rows_3T, kept_2BE = ctx.saved_tensors
        addresses = [tensor.data_ptr() for tensor in (*rows_3T, kept_2BE[0])]
        dgates_TK, dlogits_TE = dgates_TK.contiguous(), torch.empty_like(logits_TE)
        native.module.route_backward(
            dgates_TK.data_ptr(), logits_TE.data_ptr(), scores_TE.data_ptr(), chosen_TK.data_ptr(),
            gates_TK.data_ptr(), *addresses, dlogits_TE.data_ptr(), *ctx.constants, dloss.data_ptr(),
        )  # fmt: skip
        return dlogits_TE, None, None, None, None, None


def route(
    logits_TE: Tensor,
    bias_E: Tensor | None,
    shape: Shape,
    sequences: int,
    balance_weight: float = 0.0,
    z_loss_weight: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Route every token; equals `reference_route`, values and gradient.

    Shapes: logits [T, E] (fp32), bias [E] or None to chosen [T, K], gates [T, K], loss []
    """
    if native.usable(logits_TE) and shape.expert_groups == 1:
        return _NativeRoute.apply(logits_TE, bias_E, shape, sequences, balance_weight, z_loss_weight)  # type: ignore[return-value]
    return _Route.apply(logits_TE, bias_E, shape, sequences, balance_weight, z_loss_weight)  # type: ignore[return-value]


def balance_of(load_E: Tensor) -> dict[str, float]:
    """How even a load is: largest over mean, share of dead experts, entropy over its largest value."""
    share_E = load_E.double() / load_E.sum().clamp(min=1)
    entropy = -(share_E * share_E.clamp(min=1e-30).log()).sum() / torch.log(torch.tensor(float(max(2, len(load_E)))))
    return {
        "max_over_mean": float(share_E.max() * len(load_E)),
        "dead_experts": int((load_E == 0).sum()),
        "entropy": float(entropy),
    }


def bias_after(bias_E: Tensor, load_E: Tensor, rate: float) -> Tensor:
    """The routing bias after one step: up where load is below the mean, down where above.

    The step is in proportion to the distance from the mean, at most `rate`: a step of one length swings around the
    balance instead of settling (measured: largest over mean load 2.3 against 2.9, see LOG.md).

    Source: DeepSeek-V3, section 2.1.2 (no auxiliary loss); the proportion is ours
    """
    load_E = load_E.to(bias_E.dtype)
    return bias_E + rate * (1 - load_E / load_E.mean().clamp(min=1e-9)).clamp(-1, 1)
