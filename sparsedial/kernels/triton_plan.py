"""Rows by expert in Triton: a count, sums over chunks, and two launches that place; PyTorch's sort takes many more.

T tokens, K chosen, R routed rows (T*K), E experts, B blocks of places, P places, N chunks of rows.
"""

# pyright: reportGeneralTypeIssues=false
from __future__ import annotations

from dataclasses import dataclass

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from sparsedial.kernels import triton_launch
from sparsedial.kernels.reference import by_expert, visited

CHUNK = 64  # rows that a program places: each is compared with every other
SUMMED = 128  # chunks that a program adds up at a time,
EXPERTS_AT_ONCE = 16  # and experts for which it does so
BLOCKS = 64  # of places that a program describes
NUMBERS = ("rows", "top_k", "most", "block_rows")  # for whose values no kernel is compiled anew


@dataclass(frozen=True)
class Plan:
    """Where every row lies in sorted order, cut into blocks of one expert each."""

    row_of_place_P: Tensor  # int32, rows by expert
    start_of_block_B: Tensor  # int32, first place of each block
    expert_of_block_B: Tensor  # int32; -1 where a block is not used
    ends_E: Tensor  # int32, where each expert's places end


def plan_rows(chosen_TK: Tensor, experts: int, block_rows: int, top_k_T: Tensor | None = None) -> Plan:
    """Sort rows by expert, rows without one last, and cut them into blocks: the readable twin of `plan`."""
    if top_k_T is not None:
        chosen_TK = chosen_TK.masked_fill(~visited(top_k_T, chosen_TK.shape[1]), experts)
    chosen_R = chosen_TK.reshape(-1)
    rows = chosen_R.numel()
    _, order_P, ends_E = by_expert(chosen_R, experts)
    sizes_E = ends_E.diff(prepend=ends_E.new_zeros(1))
    blocks_E = (sizes_E + block_rows - 1) // block_rows
    block_ends_E = blocks_E.cumsum(0)
    most = (rows + block_rows - 1) // block_rows + experts  # an upper bound, so that nothing is read back
    block_B = torch.arange(most, device=chosen_R.device)
    expert_B = torch.searchsorted(block_ends_E, block_B, right=True)
    inside_B = expert_B < experts
    held_B = expert_B.clamp(max=experts - 1)
    first_B = (ends_E - sizes_E)[held_B] + (block_B - (block_ends_E - blocks_E)[held_B]) * block_rows
    return Plan(
        row_of_place_P=order_P.to(torch.int32),
        start_of_block_B=torch.where(inside_B, first_B, 0).to(torch.int32),
        expert_of_block_B=torch.where(inside_B, expert_B, -1).to(torch.int32),
        ends_E=ends_E.to(torch.int32),
    )


@triton.jit
def _expert_of(chosen, visited, row, rows, top_k, experts, SOME: tl.constexpr):
    """The expert of rows; `experts`, which is none, for choices that are not visited and beyond the last row."""
    expert = tl.load(chosen + row, mask=row < rows, other=experts).to(tl.int32)
    if SOME:
        visits = tl.load(visited + row // top_k, mask=row < rows, other=0)
        expert = tl.where(row % top_k < visits, expert, experts)
    return expert


@triton.jit(do_not_specialize=NUMBERS)
def _count_kernel(
    chosen, visited, counts, rows, top_k, experts, SOME: tl.constexpr, CHUNK: tl.constexpr, EXPERTS: tl.constexpr
):
    """How many rows of a chunk go to each expert."""
    row, expert = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK), tl.arange(0, EXPERTS)
    own = _expert_of(chosen, visited, row, rows, top_k, experts, SOME)
    count = tl.sum((own[:, None] == expert[None, :]).to(tl.int32), 0)
    tl.store(counts + tl.program_id(0) * experts + expert, count, mask=expert < experts)


@triton.jit(do_not_specialize=["chunks", "experts"])
def _sums_kernel(counts, chunks, experts, SUMMED: tl.constexpr, EXPERTS: tl.constexpr):
    """Each count becomes that of its chunk and all before it.

    (PyTorch's sums along rows take one thread a column: half a millisecond for a few thousand chunks.)
    """
    chunk, expert = tl.arange(0, SUMMED), tl.program_id(0) * EXPERTS + tl.arange(0, EXPERTS)
    before = tl.zeros((EXPERTS,), tl.int32)
    for first in range(0, chunks, SUMMED):
        known = (first + chunk < chunks)[:, None] & (expert < experts)[None, :]
        at = counts + (first + chunk)[:, None] * experts + expert[None, :]
        own = tl.load(at, mask=known, other=0)
        tl.store(at, before[None, :] + tl.cumsum(own, 0), mask=known)
        before += tl.sum(own, 0)


@triton.jit(do_not_specialize=NUMBERS)
def _blocks_kernel(
    total, ends, start_of_block, expert_of_block, experts, most, block_rows,
    BLOCKS: tl.constexpr, EXPERTS: tl.constexpr,
):  # fmt: skip
    """Where each expert's places end; and of some blocks the first place, and the expert or -1."""
    expert, block = tl.arange(0, EXPERTS), tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)
    size = tl.load(total + expert, mask=expert < experts, other=0)
    end, blocks = tl.cumsum(size, 0), (size + block_rows - 1) // block_rows
    block_end = tl.cumsum(blocks, 0)
    tl.store(ends + expert, end, mask=(expert < experts) & (tl.program_id(0) == 0))
    inside = (block[:, None] < block_end[None, :]) & (block[:, None] >= (block_end - blocks)[None, :])
    first = (end - size)[None, :] + (block[:, None] - (block_end - blocks)[None, :]) * block_rows
    tl.store(start_of_block + block, tl.sum(tl.where(inside, first, 0), 1), mask=block < most)
    tl.store(expert_of_block + block, tl.sum(tl.where(inside, expert[None, :] + 1, 0), 1) - 1, mask=block < most)


@triton.jit(do_not_specialize=NUMBERS)
def _place_kernel(
    chosen, visited, counts, ends, row_of_place, rows, top_k, experts,
    SOME: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """The place of each row of a chunk: after its expert's first, those of earlier chunks, and earlier rows."""
    inside = tl.arange(0, CHUNK)
    row = tl.program_id(0) * CHUNK + inside
    own = _expert_of(chosen, visited, row, rows, top_k, experts, SOME)
    before = tl.sum(((own[:, None] == own[None, :]) & (inside[:, None] > inside[None, :])).to(tl.int32), 1)
    known = own < experts
    start = tl.load(ends + own - 1, mask=known & (own > 0), other=0)
    earlier = tl.load(counts + (tl.program_id(0) - 1) * experts + own, mask=known & (tl.program_id(0) > 0), other=0)
    tl.store(row_of_place + start + earlier + before, row, mask=known)


def plan(chosen_TK: Tensor, experts: int, block_rows: int, top_k_T: Tensor | None = None) -> Plan:
    """Equals `plan_rows`, but for rows without an expert, which have no place."""
    rows, top_k = chosen_TK.numel(), chosen_TK.shape[1]
    chunks, most = triton_launch.blocks_in(rows, CHUNK), triton_launch.blocks_in(rows, block_rows) + experts
    visits = chosen_TK if top_k_T is None else top_k_T.contiguous()
    counts_NE, row_of_place_P, start_of_block_B, expert_of_block_B, ends_E = (
        chosen_TK.new_empty(size, dtype=torch.int32) for size in ((chunks, experts), rows, most, most, experts)
    )
    sizes = {"SOME": top_k_T is not None, "CHUNK": CHUNK}
    launch, block = triton_launch.launch, triton_launch.power_of_two(experts)
    with triton_launch.on(chosen_TK):
        launch(_count_kernel, (chunks,), chosen_TK, visits, counts_NE, rows, top_k, experts, **sizes, EXPERTS=block)
        launch(
            _sums_kernel, (triton_launch.blocks_in(experts, EXPERTS_AT_ONCE),), counts_NE, chunks, experts,
            SUMMED=SUMMED, EXPERTS=EXPERTS_AT_ONCE,
        )  # fmt: skip
        launch(
            _blocks_kernel, (triton_launch.blocks_in(most, BLOCKS),), counts_NE[-1], ends_E, start_of_block_B,
            expert_of_block_B, experts, most, block_rows, BLOCKS=BLOCKS, EXPERTS=block,
        )  # fmt: skip
        launch(
            _place_kernel, (chunks,), chosen_TK, visits, counts_NE, ends_E, row_of_place_P, rows, top_k, experts,
            **sizes,
        )  # fmt: skip
    return Plan(row_of_place_P, start_of_block_B, expert_of_block_B, ends_E)
