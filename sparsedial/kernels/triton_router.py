"""The router in Triton: from logits to choices, weights, loads and losses in two launches, and back in one.

B sequences, S positions, T tokens (B*S), E experts, K chosen, P parts of a sequence's tokens.
"""

# pyright: reportGeneralTypeIssues=false
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparsedial.kernels import triton_launch

BLOCK_VALUES = 1024  # scores that a program holds at once; with twice as many, registers spill
NUMBERS = ("positions", "sequences", "parts")  # for whose values no kernel is compiled anew: no address needs them


@dataclass(frozen=True)
class Rule:
    """How scores become weights, and what the losses weigh."""

    top_k: int
    sequences: int
    sigmoid: bool
    normalize: bool
    ones: bool
    scaling: float
    balance_weight: float
    z_loss_weight: float
    groups: int = 1
    kept_groups: int = 1
    top_p: float = 1.0


@triton.jit
def _in_kept_groups(rank, column, experts, GROUPS: tl.constexpr, KEPT: tl.constexpr, TWO: tl.constexpr):
    """The ranks of experts in the best groups, the others minus infinity: a group's is the sum of its two largest."""
    size = experts // GROUPS
    group = (column // size)[None, :]
    of_group = tl.full(rank.shape, float("-inf"), tl.float32)
    for number in range(GROUPS):
        own = tl.where(group == number, rank, float("-inf"))
        sum_of_best = tl.max(own, 1)
        if TWO:
            first = tl.argmax(own, 1)
            sum_of_best += tl.max(tl.where(column[None, :] == first[:, None], float("-inf"), own), 1)
        of_group = tl.where(group == number, sum_of_best[:, None], of_group)
    kept = tl.full(rank.shape, float("-inf"), tl.float32)
    for _ in range(KEPT):
        best = group == (tl.argmax(of_group, 1) // size)[:, None]
        kept = tl.where(best, rank, kept)
        of_group = tl.where(best, float("-inf"), of_group)
    return kept


@triton.jit
def _within(weights, choice, top_p, K: tl.constexpr):
    """Whether a choice is among the fewest of its token whose weights reach a share of their sum."""
    before = tl.zeros(weights.shape, tl.float32)
    for k in range(K):
        other = tl.sum(tl.where(choice == k, weights, 0.0), 1)[:, None]
        before += tl.where((other > weights) | ((other == weights) & (k < choice)), other, 0.0)
    return before / tl.maximum(tl.sum(weights, 1), 1e-20)[:, None] < top_p


@triton.jit
def _scores(logits, experts, known, SIGMOID: tl.constexpr, BLOCK: tl.constexpr):
    """Logits and scores of rows, zero beyond the experts; and the log of the sum of the logits' exponentials."""
    column = tl.arange(0, BLOCK)
    inside = known[:, None] & (column < experts)[None, :]
    z = tl.load(logits + column[None, :], mask=inside, other=0.0)
    largest = tl.max(tl.where((column < experts)[None, :], z, float("-inf")), 1)
    powers = tl.where((column < experts)[None, :], tl.exp(z - largest[:, None]), 0.0)
    total = tl.sum(powers, 1)
    soft = powers / total[:, None]
    scores = tl.where((column < experts)[None, :], tl.sigmoid(z), 0.0) if SIGMOID else soft
    return soft, scores, largest + tl.log(total)


@triton.jit(do_not_specialize=NUMBERS)
def _route_kernel(
    logits, bias, visited, chosen, gates, kept, load_parts, share_parts, z_parts, positions, experts, parts, scaling,
    top_p, K: tl.constexpr, CHOICES: tl.constexpr, SIGMOID: tl.constexpr, NORMALIZE: tl.constexpr, ONES: tl.constexpr,
    BIASED: tl.constexpr, SOME: tl.constexpr, PARTLY: tl.constexpr, GROUPS: tl.constexpr, KEPT: tl.constexpr,
    TWO: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A part of one sequence: choices and weights of its tokens, and its share of loads, mean scores and z-loss."""
    part, sequence = tl.program_id(0), tl.program_id(1)
    position, column = part * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK)
    known = position < positions
    token = (sequence * positions + position).to(tl.int64)
    _, scores, log_sum = _scores(logits + token[:, None] * experts, experts, known, SIGMOID, BLOCK)
    rank = scores
    if BIASED:
        rank += tl.load(bias + column, mask=column < experts, other=0.0)[None, :]
    rank = tl.where((column < experts)[None, :], rank, float("-inf"))
    if GROUPS > 1:
        rank = _in_kept_groups(rank, column, experts, GROUPS, KEPT, TWO)
    visits = tl.load(visited + token, mask=known, other=0) if SOME else tl.full((ROWS,), K, tl.int64)
    choice = tl.arange(0, CHOICES)[None, :]
    weights = tl.zeros((ROWS, CHOICES), tl.float32)
    experts_of = tl.zeros((ROWS, CHOICES), tl.int32)
    load = tl.zeros((BLOCK,), tl.float32)
    for k in range(K):
        best = tl.minimum(tl.argmax(rank, 1), experts - 1)  # of scores that are no numbers it may be any
        taken = column[None, :] == best[:, None]
        keeps = known & (k < visits)
        if ONES and not PARTLY:
            weight = keeps.to(tl.float32)
        else:
            weight = tl.sum(tl.where(taken & keeps[:, None], scores, 0.0), 1)
        weights = tl.where(choice == k, weight[:, None], weights)
        if PARTLY:
            experts_of = tl.where(choice == k, best[:, None].to(tl.int32), experts_of)
        else:
            load += tl.sum((taken & keeps[:, None]).to(tl.float32), 0)
        rank = tl.where(taken, float("-inf"), rank)
        tl.store(chosen + token * K + k, best.to(tl.int64), mask=known)
    place = token[:, None] * K + choice
    if PARTLY:
        stays = _within(weights, choice, top_p, K) & known[:, None] & (choice < K) & (choice < visits[:, None])
        weights = stays.to(tl.float32) if ONES else tl.where(stays, weights, 0.0)
        tl.store(kept + place, stays.to(tl.int32), mask=known[:, None] & (choice < K))
        for k in range(K):
            own = tl.sum(tl.where((choice == k) & stays, experts_of + 1, 0), 1) - 1  # -1: it is not kept
            load += tl.sum((column[None, :] == own[:, None]).to(tl.float32), 0)
    if NORMALIZE:
        weights /= (tl.sum(weights, 1) + 1e-20)[:, None]
    tl.store(gates + place, weights * scaling, mask=known[:, None] & (choice < K))
    at = (sequence * parts + part) * experts + column
    share = tl.where(known[:, None], scores / tl.sum(scores, 1)[:, None], 0.0)
    tl.store(load_parts + at, load, mask=column < experts)
    tl.store(share_parts + at, tl.sum(share, 0), mask=column < experts)
    tl.store(z_parts + sequence * parts + part, tl.sum(tl.where(known, log_sum * log_sum, 0.0), 0))


@triton.jit(do_not_specialize=NUMBERS)
def _route_losses_kernel(
    load_parts, share_parts, z_parts, load, loss, sequences, positions, experts, parts, balance_weight, z_loss_weight,
    BLOCK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """One sequence's loads, and its share of the weighted losses."""
    sequence, column, z = tl.program_id(0), tl.arange(0, BLOCK), tl.zeros((), tl.float32)
    own, mean = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for first in range(0, parts, PARTS):
        part = first + tl.arange(0, PARTS)
        known = (part < parts)[:, None] & (column < experts)[None, :]
        at = (sequence * parts + part)[:, None] * experts + column[None, :]
        own += tl.sum(tl.load(load_parts + at, mask=known, other=0.0), 0)
        mean += tl.sum(tl.load(share_parts + at, mask=known, other=0.0), 0)
        z += tl.sum(tl.load(z_parts + sequence * parts + part, mask=part < parts, other=0.0), 0)
    tl.store(load + sequence * experts + column, own.to(tl.int64), mask=column < experts)
    balance = tl.sum(own * (experts / tl.sum(own, 0)) * mean, 0) / positions
    tl.store(loss + sequence, (balance_weight * balance + z_loss_weight * z / positions) / sequences)


@triton.jit(do_not_specialize=NUMBERS)
def _route_backward_kernel(
    dgates, dloss, logits, chosen, visited, kept_choices, load_by_sequence, dlogits, positions, experts, sequences,
    scaling, balance_weight, z_loss_weight,
    K: tl.constexpr, SIGMOID: tl.constexpr, NORMALIZE: tl.constexpr, SOME: tl.constexpr, PARTLY: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """From the gradients of weights and loss to that of the logits."""
    sequence, column = tl.program_id(1), tl.arange(0, BLOCK)
    position = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    known, inside = position < positions, (column < experts)[None, :]
    token = (sequence * positions + position).to(tl.int64)
    soft, scores, log_sum = _scores(logits + token[:, None] * experts, experts, known, SIGMOID, BLOCK)
    visits = tl.load(visited + token, mask=known, other=0) if SOME else tl.full((ROWS,), K, tl.int64)
    slope = tl.zeros((ROWS, BLOCK), tl.float32)  # of the scores
    kept = tl.zeros((ROWS, BLOCK), tl.float32)  # 1 at each choice that a token visits
    for k in range(K):
        expert = tl.load(chosen + token * K + k, mask=known, other=0)
        keeps = known & (k < visits)
        if PARTLY:
            keeps = tl.load(kept_choices + token * K + k, mask=known, other=0) > 0
        taken = ((column[None, :] == expert[:, None]) & keeps[:, None]).to(tl.float32)
        dgate = tl.load(dgates + token * K + k, mask=known, other=0.0).to(tl.float32) * scaling
        slope += taken * dgate[:, None]
        kept += taken
    if NORMALIZE:
        total = tl.sum(kept * scores, 1) + 1e-20
        along = tl.sum(slope * scores, 1) / total
        slope = (slope - kept * along[:, None]) / total[:, None]
    outer = tl.load(dloss)
    load = tl.load(load_by_sequence + sequence * experts + column, mask=column < experts, other=0).to(tl.float32)
    weight = outer * balance_weight * experts / tl.sum(load, 0) / positions / sequences
    sum_of_scores = tl.sum(scores, 1)
    balance = load[None, :] * weight
    mean = tl.sum(balance * scores, 1) / sum_of_scores
    slope += tl.where(inside, balance - mean[:, None], 0.0) / sum_of_scores[:, None]
    if SIGMOID:
        slope *= scores * (1 - scores)
    else:
        slope = scores * (slope - tl.sum(slope * scores, 1)[:, None])
    slope += soft * (outer * z_loss_weight * 2 / (sequences * positions) * log_sum)[:, None]
    tl.store(dlogits + token[:, None] * experts + column[None, :], slope, mask=known[:, None] & inside)


class _Route(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits_TE: Tensor, bias_E: Tensor | None, top_k_T: Tensor | None, rule: Rule
    ) -> tuple[Tensor, ...]:
        (tokens, experts), sequences = logits_TE.shape, rule.sequences
        positions, block = tokens // sequences, triton_launch.power_of_two(experts)
        rows = max(1, min(64, BLOCK_VALUES // block))
        parts = triton_launch.blocks_in(positions, rows)
        chosen_TK = logits_TE.new_empty(tokens, rule.top_k, dtype=torch.long)
        gates_TK = logits_TE.new_empty(tokens, rule.top_k)
        load_parts, share_parts = (logits_TE.new_empty(sequences, parts, experts) for _ in range(2))
        z_parts, loss_B = logits_TE.new_empty(sequences, parts), logits_TE.new_empty(sequences)
        load_BE = chosen_TK.new_empty(sequences, experts)
        bias, visits = logits_TE if bias_E is None else bias_E, chosen_TK if top_k_T is None else top_k_T
        constants = {"K": rule.top_k, "SIGMOID": rule.sigmoid, "NORMALIZE": rule.normalize and not rule.ones}
        partly = rule.top_p < 1
        kept_TK = chosen_TK.new_empty(chosen_TK.shape, dtype=torch.int32) if partly else chosen_TK
        constants |= {"SOME": top_k_T is not None, "PARTLY": partly, "ROWS": rows, "BLOCK": block}
        grouped = rule.groups > 1 and rule.kept_groups < rule.groups
        groups = {"GROUPS": rule.groups if grouped else 1, "KEPT": rule.kept_groups if grouped else 1}
        groups |= {"TWO": grouped and rule.sigmoid and experts > rule.groups}
        with triton_launch.on(logits_TE):
            triton_launch.launch(
                _route_kernel, (parts, sequences), logits_TE, bias, visits, chosen_TK, gates_TK, kept_TK,
                load_parts, share_parts, z_parts, positions, experts, parts, rule.scaling, rule.top_p, ONES=rule.ones,
                BIASED=bias_E is not None, CHOICES=triton_launch.power_of_two(rule.top_k), **groups, **constants,
            )  # fmt: skip
            triton_launch.launch(
                _route_losses_kernel, (sequences,), load_parts, share_parts, z_parts, load_BE, loss_B, sequences,
                positions, experts, parts, rule.balance_weight, rule.z_loss_weight, BLOCK=block,
                PARTS=max(1, min(64, BLOCK_VALUES // block)),
            )  # fmt: skip
        ctx.save_for_backward(logits_TE, chosen_TK, visits, kept_TK, load_BE)
        ctx.rule, ctx.grid, ctx.constants = rule, (parts, sequences), constants
        load_E = load_BE.sum(0)
        ctx.mark_non_differentiable(chosen_TK, load_E)
        return chosen_TK, gates_TK, load_E, loss_B.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        logits_TE, chosen_TK, visits_T, kept_TK, load_BE = ctx.saved_tensors
        _, dgates_TK, _, dloss = slopes
        rule: Rule = ctx.rule
        dlogits_TE = torch.empty_like(logits_TE)
        with triton_launch.on(logits_TE):
            triton_launch.launch(
                _route_backward_kernel, ctx.grid, dgates_TK.contiguous(), dloss, logits_TE, chosen_TK, visits_T,
                kept_TK, load_BE, dlogits_TE, len(logits_TE) // rule.sequences, logits_TE.shape[1], rule.sequences,
                rule.scaling, rule.balance_weight, rule.z_loss_weight, **ctx.constants,
            )  # fmt: skip
        return dlogits_TE, None, None, None


def route(
    logits_TE: Tensor, bias_E: Tensor | None, top_k_T: Tensor | None, rule: Rule
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Equals `router.route` without experts that are off."""
    top_k_T = None if top_k_T is None else top_k_T.contiguous()
    return _Route.apply(logits_TE.contiguous(), bias_E, top_k_T, rule)  # type: ignore[return-value]
