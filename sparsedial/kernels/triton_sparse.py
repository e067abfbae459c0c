"""The sparse layer on a GPU in Triton: gather, two products with SwiGLU between, weighted scatter, and their backward.

Rows are sorted by expert and cut into blocks of one expert each. A kernel reads a row's token where it lies and writes
a row's result where it belongs, so no separate pass gathers rows or restores their order.

T tokens, K chosen experts, R = T*K routed rows (row r is choice r % K of token r // K), E experts, D d_model,
F d_expert, H = 2F (gate half first), P places in sorted order, B blocks of places.
"""

# pyright: reportGeneralTypeIssues=false
# (Triton types a kernel as never returning, and kernels here call others)
from __future__ import annotations

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparsedial.kernels import triton_descriptors, triton_launch, triton_plan, triton_tiles
from sparsedial.kernels.triton_tiles import Choice, Tiles
from sparsedial.kernels.tuned import tuned_tiles

GROUP = 8  # blocks of rows that take the same columns one after the other


@triton.jit
def _places(start, end, size: tl.constexpr):
    """Places of a block, and which of them are its own; the others repeat its last, so that loads need no mask."""
    place = start + tl.arange(0, size)
    return tl.minimum(place, end - 1), place < end


@triton.jit
def _blocks_of(columns_size, COLUMNS: tl.constexpr, GROUP: tl.constexpr):
    """A program's block of rows and of columns: GROUP blocks of rows take the same columns before the next ones, so
    that both those rows and the expert's weights are read from the cache that all processors share.
    """
    column_blocks = tl.cdiv(columns_size, COLUMNS)
    program, blocks = tl.program_id(0), tl.num_programs(0) // column_blocks
    first = program // (GROUP * column_blocks) * GROUP
    inside, rows = program % (GROUP * column_blocks), tl.minimum(blocks - first, GROUP)
    return first + inside % rows, inside // rows


@triton.jit
def _up_kernel(
    x, w_in, h, a, row_of_place, start_of_block, expert_of_block, ends,
    top_k, d_model, width, DESCRIBED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """h = x[token] W_in and a = silu(gate) * up, both by place: one block of rows and of F columns."""
    block, column_block = _blocks_of(width, COLUMNS, GROUP)
    expert = tl.load(expert_of_block + block)
    if expert < 0:
        return
    place, own = _places(tl.load(start_of_block + block), tl.load(ends + expert), ROWS)
    token = (tl.load(row_of_place + place) // top_k).to(tl.int64)
    column = column_block * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    gate = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    up = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for first in range(0, d_model, DEPTH):
        depth = first + tl.arange(0, DEPTH)
        if DESCRIBED:
            rows = tl.load(x + token[:, None] * d_model + depth[None, :])
            at = expert * d_model + first
            gate = tl.dot(rows, w_in.load([at, column_block * COLUMNS]), gate)
            up = tl.dot(rows, w_in.load([at, width + column_block * COLUMNS]), up)
        else:
            deep = depth < d_model
            rows = tl.load(x + token[:, None] * d_model + depth[None, :], mask=deep[None, :], other=0.0)
            matrix = w_in + expert.to(tl.int64) * d_model * 2 * width
            weights = matrix + depth[:, None] * 2 * width + column[None, :]
            known = deep[:, None] & inside[None, :]
            gate = tl.dot(rows, tl.load(weights, mask=known, other=0.0), gate)
            up = tl.dot(rows, tl.load(weights + width, mask=known, other=0.0), up)
    written = own[:, None] & inside[None, :]
    out = place[:, None].to(tl.int64) * 2 * width + column[None, :]
    tl.store(h + out, gate.to(h.dtype.element_ty), mask=written)
    tl.store(h + out + width, up.to(h.dtype.element_ty), mask=written)
    activated = gate * tl.sigmoid(gate) * up
    tl.store(a + place[:, None].to(tl.int64) * width + column[None, :], activated.to(a.dtype.element_ty), mask=written)


@triton.jit
def _weights(
    w, expert, first_depth, first_column, depth_size, columns_size,
    TURNED: tl.constexpr, DESCRIBED: tl.constexpr, DEPTH: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A block [DEPTH, COLUMNS] of an expert's matrix; beyond it zeros, or by a descriptor anything."""
    if DESCRIBED:
        if TURNED:
            found = w.load([expert * columns_size + first_column, first_depth]).T
        else:
            found = w.load([expert * depth_size + first_depth, first_column])
    else:
        depth, column = first_depth + tl.arange(0, DEPTH), first_column + tl.arange(0, COLUMNS)
        matrix = w + expert.to(tl.int64) * depth_size * columns_size
        if TURNED:
            at = matrix + column[None, :] * depth_size + depth[:, None]
        else:
            at = matrix + depth[:, None] * columns_size + column[None, :]
        found = tl.load(at, mask=(depth < depth_size)[:, None] & (column < columns_size)[None, :], other=0.0)
    return found


@triton.jit
def _rows_kernel(
    x, w, gates, y, row_of_place, start_of_block, expert_of_block, ends,
    depth_size, columns_size,
    GATED: tl.constexpr, TURNED: tl.constexpr, DESCRIBED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """y[row] = x[place] W, times the row's gate where GATED: one block of rows and of columns. W lies [depth, columns],
    or where TURNED [columns, depth].
    """
    block, column_block = _blocks_of(columns_size, COLUMNS, GROUP)
    expert = tl.load(expert_of_block + block)
    if expert < 0:
        return
    place, own = _places(tl.load(start_of_block + block), tl.load(ends + expert), ROWS)
    column = column_block * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < columns_size
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for first in range(0, depth_size, DEPTH):
        depth = first + tl.arange(0, DEPTH)
        at = x + place[:, None].to(tl.int64) * depth_size + depth[None, :]
        values = tl.load(at) if DESCRIBED else tl.load(at, mask=(depth < depth_size)[None, :], other=0.0)
        weights = _weights(
            w, expert, first, column_block * COLUMNS, depth_size, columns_size, TURNED, DESCRIBED, DEPTH, COLUMNS
        )
        total = tl.dot(values, weights, total)
    row = tl.load(row_of_place + place)
    if GATED:
        total *= tl.load(gates + row).to(tl.float32)[:, None]
    tl.store(
        y + row[:, None].to(tl.int64) * columns_size + column[None, :], total.to(y.dtype.element_ty),
        mask=own[:, None] & inside[None, :],
    )  # fmt: skip


@triton.jit
def _swiglu_backward(da, weight, h, dh, a, place, column, own, width):
    """From the gradient of rows' activations to that of h, and the gated activations; returns the gates' gradient.

    Half of a block's columns at a time: with all of them an H100 spills registers to memory.
    """
    known = own[:, None] & (column < width)[None, :]
    at = place[:, None].to(tl.int64) * 2 * width + column[None, :]
    gate_in = tl.load(h + at, mask=known, other=0.0).to(tl.float32)
    up = tl.load(h + at + width, mask=known, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gate_in)
    silu = gate_in * sigmoid
    share = tl.sum(da * silu * up, axis=1)
    da *= weight[:, None]
    tl.store(dh + at, (da * up * sigmoid * (1 + gate_in * (1 - sigmoid))).to(dh.dtype.element_ty), mask=known)
    tl.store(dh + at + width, (da * silu).to(dh.dtype.element_ty), mask=known)
    out = place[:, None].to(tl.int64) * width + column[None, :]
    tl.store(a + out, (silu * up * weight[:, None]).to(a.dtype.element_ty), mask=known)
    return share


@triton.jit
def _down_backward_kernel(
    dy, w_out, h, gates, dh, a, dgate_parts, row_of_place, start_of_block, expert_of_block, ends,
    top_k, d_model, width, parts, DESCRIBED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """From dy to the gradient of h, by place, and the gated activations; and each block's share of the gates'."""
    block, column_block = _blocks_of(width, COLUMNS, GROUP)
    expert = tl.load(expert_of_block + block)
    if expert < 0:
        return
    place, own = _places(tl.load(start_of_block + block), tl.load(ends + expert), ROWS)
    token = (tl.load(row_of_place + place) // top_k).to(tl.int64)
    da = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for first in range(0, d_model, DEPTH):
        depth = first + tl.arange(0, DEPTH)
        at = dy + token[:, None] * d_model + depth[None, :]
        slopes = tl.load(at) if DESCRIBED else tl.load(at, mask=(depth < d_model)[None, :], other=0.0)
        weights = _weights(
            w_out, expert, first, column_block * COLUMNS, d_model, width, True, DESCRIBED, DEPTH, COLUMNS
        )
        da = tl.dot(slopes, weights, da)
    row = tl.load(row_of_place + place)
    weight = tl.load(gates + row).to(tl.float32)
    left, right = tl.split(tl.permute(tl.reshape(da, (ROWS, 2, COLUMNS // 2)), (0, 2, 1)))
    half = column_block * COLUMNS + tl.arange(0, COLUMNS // 2)
    share = _swiglu_backward(left, weight, h, dh, a, place, half, own, width)
    share += _swiglu_backward(right, weight, h, dh, a, place, half + COLUMNS // 2, own, width)
    tl.store(dgate_parts + row * parts + column_block, share, mask=own)


@triton.jit
def _outer_kernel(
    x, y, dw, row_of_place, ends, top_k, left_size, right_size,
    LEFT_BY_TOKEN: tl.constexpr, RIGHT_BY_TOKEN: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """dW[expert] = the sum over its places of x^T y; each side read by place, or by its row's token.

    One expert's blocks follow each other, so that its rows are read from the cache that all processors share.
    """
    left_block, right_block = _blocks_of(right_size, COLUMNS, GROUP)
    expert = tl.program_id(1)
    end = tl.load(ends + expert)
    start = tl.load(ends + expert - 1, mask=expert > 0, other=0)
    left = left_block * ROWS + tl.arange(0, ROWS)
    right = right_block * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for first in range(start, end, DEPTH):
        place, own = _places(first, end, DEPTH)
        token = tl.load(row_of_place + place) // top_k
        left_at = (token if LEFT_BY_TOKEN else place).to(tl.int64)
        right_at = (token if RIGHT_BY_TOKEN else place).to(tl.int64)
        lefts = tl.load(
            x + left_at[None, :] * left_size + left[:, None], mask=own[None, :] & (left < left_size)[:, None], other=0.0
        )
        rights = tl.load(
            y + right_at[:, None] * right_size + right[None, :],
            mask=own[:, None] & (right < right_size)[None, :], other=0.0,
        )  # fmt: skip
        total = tl.dot(lefts, rights, total)
    out = expert.to(tl.int64) * left_size * right_size + left[:, None] * right_size + right[None, :]
    known = (left < left_size)[:, None] & (right < right_size)[None, :]
    tl.store(dw + out, total.to(dw.dtype.element_ty), mask=known)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_TD: Tensor,
        w_in_EDH: Tensor,
        w_out_EFD: Tensor,
        chosen_TK: Tensor,
        gates_TK: Tensor,
        top_k_T: Tensor | None,
        tiles: Choice,
    ) -> Tensor:
        (tokens, top_k), (experts, width, d_model) = chosen_TK.shape, w_out_EFD.shape
        rows, ctx.all_visited = tokens * top_k, top_k_T is None
        plan = triton_plan.plan(chosen_TK, experts, tiles["up"].rows, top_k_T)
        h_PH, a_PF = x_TD.new_empty(rows, 2 * width), x_TD.new_empty(rows, width)
        y_RD = _by_row(x_TD, rows, d_model, ctx.all_visited)
        index = plan.row_of_place_P, plan.start_of_block_B, plan.expert_of_block_B, plan.ends_E
        with triton_launch.on(x_TD):
            _launch(
                _up_kernel, (len(plan.expert_of_block_B), width), tiles["up"],
                x_TD, w_in_EDH, h_PH, a_PF, *index, top_k, d_model, width,
            )  # fmt: skip
            _launch(
                _rows_kernel, (len(plan.expert_of_block_B), d_model), tiles["down"],
                a_PF, w_out_EFD, gates_TK, y_RD, *index, width, d_model, GATED=True, TURNED=False,
            )  # fmt: skip
        ctx.save_for_backward(x_TD, w_in_EDH, w_out_EFD, gates_TK, h_PH, *index)
        ctx.tiles = tiles
        return y_RD.view(tokens, top_k, d_model).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TD: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x_TD, w_in_EDH, w_out_EFD, gates_TK, h_PH, *index = ctx.saved_tensors
        row_of_place_P, _, expert_of_block_B, ends_E = index
        tiles: Choice = ctx.tiles
        (tokens, top_k), (_, width, d_model) = gates_TK.shape, w_out_EFD.shape
        dy_TD, rows, blocks = dy_TD.contiguous(), tokens * top_k, len(expert_of_block_B)
        parts = triton_launch.blocks_in(width, tiles["down_backward"].columns)
        dh_PH, a_PF = torch.empty_like(h_PH), h_PH.new_empty(rows, width)
        dgate_parts = _by_row(dy_TD, rows, parts, ctx.all_visited, torch.float32)
        dx_RD = _by_row(dy_TD, rows, d_model, ctx.all_visited)
        dw_in_EDH, dw_out_EFD = torch.empty_like(w_in_EDH), torch.empty_like(w_out_EFD)
        with triton_launch.on(x_TD):
            _launch(
                _down_backward_kernel, (blocks, width), tiles["down_backward"],
                dy_TD, w_out_EFD, h_PH, gates_TK, dh_PH, a_PF, dgate_parts, *index, top_k, d_model, width, parts,
                turned=True,
            )  # fmt: skip
            _launch(
                _rows_kernel, (blocks, d_model), tiles["up_backward"],
                dh_PH, w_in_EDH, gates_TK, dx_RD, *index, 2 * width, d_model, turned=True, GATED=False, TURNED=True,
            )  # fmt: skip
            for left, right, dw, by_token in (
                (x_TD, dh_PH, dw_in_EDH, (True, False)),
                (a_PF, dy_TD, dw_out_EFD, (False, True)),
            ):
                _launch_outer(left, right, dw, by_token, row_of_place_P, ends_E, top_k, tiles["outer"])
        dgates_TK = dgate_parts.sum(1).view(tokens, top_k).to(gates_TK.dtype)
        return dx_RD.view(tokens, top_k, d_model).sum(1), dw_in_EDH, dw_out_EFD, None, dgates_TK, None, None


def _by_row(like: Tensor, rows: int, columns: int, all_visited: bool, dtype: torch.dtype | None = None) -> Tensor:
    """An output tensor by row; zeros where the kernels leave rows out."""
    return (like.new_empty if all_visited else like.new_zeros)(rows, columns, dtype=dtype)


def _run(kernel: Any, grid: tuple[int, ...], tiles: Tiles, *arguments: Any, **constants: Any) -> None:
    sizes = {"ROWS": tiles.rows, "COLUMNS": tiles.columns, "DEPTH": tiles.depth, "GROUP": GROUP}
    triton_launch.launch(kernel, grid, *arguments, warps=tiles.warps, stages=tiles.stages, **constants, **sizes)


def _launch(
    kernel: Any,
    size: tuple[int, int],
    tiles: Tiles,
    rows: Tensor,
    w_EAB: Tensor,
    *arguments: Any,
    turned: bool = False,
    **constants: Any,
) -> None:
    """Launch over blocks of rows, and blocks of `size[1]` columns; weights by descriptor where that is possible."""
    if not triton_launch.launches():
        return
    grid = (size[0] * triton_launch.blocks_in(size[1], tiles.columns),)
    weights = triton_descriptors.readable(w_EAB, tiles, turned)
    described = not isinstance(weights, Tensor)
    _run(kernel, grid, tiles, rows, weights, *arguments, DESCRIBED=described, **constants)


def _launch_outer(
    left: Tensor,
    right: Tensor,
    dw: Tensor,
    by_token: tuple[bool, bool],
    row_of_place_P: Tensor,
    ends_E: Tensor,
    top_k: int,
    tiles: Tiles,
) -> None:
    experts, left_size, right_size = dw.shape
    grid = (
        triton_launch.blocks_in(left_size, tiles.rows) * triton_launch.blocks_in(right_size, tiles.columns),
        experts,
    )
    sides = {"LEFT_BY_TOKEN": by_token[0], "RIGHT_BY_TOKEN": by_token[1]}
    _run(_outer_kernel, grid, tiles, left, right, dw, row_of_place_P, ends_E, top_k, left_size, right_size, **sides)


def triton_fused(
    x_TD: Tensor,
    w_in_EDH: Tensor,
    w_out_EFD: Tensor,
    chosen_TK: Tensor,
    gates_TK: Tensor,
    top_k_T: Tensor | None = None,
) -> Tensor:
    """The sparse layer; equals `reference.reference`."""
    return with_tiles(x_TD, w_in_EDH, w_out_EFD, chosen_TK, gates_TK, top_k_T, _tiles(x_TD, w_out_EFD, chosen_TK))


def with_tiles(
    x_TD: Tensor,
    w_in_EDH: Tensor,
    w_out_EFD: Tensor,
    chosen_TK: Tensor,
    gates_TK: Tensor,
    top_k_T: Tensor | None,
    tiles: Choice,
) -> Tensor:
    """The same with these tiles."""
    x_TD = x_TD.contiguous()
    w_in_EDH, w_out_EFD = w_in_EDH.to(x_TD.dtype).contiguous(), w_out_EFD.to(x_TD.dtype).contiguous()
    return _Fused.apply(x_TD, w_in_EDH, w_out_EFD, chosen_TK.long(), gates_TK.contiguous(), top_k_T, tiles)  # type: ignore[return-value]


def _tiles(x_TD: Tensor, w_out_EFD: Tensor, chosen_TK: Tensor) -> Choice:
    """The tiles of a layer; small ones in the interpreter, so that even a small layer has many."""
    if not x_TD.is_cuda:
        return triton_tiles.alike(Tiles(16, 16, 16))
    flops = 3 * 2 * 3 * w_out_EFD[0].numel() * chosen_TK.numel()
    if flops >= triton_tiles.SMALL_FLOPS and x_TD.dtype != torch.float32 and (found := tuned_tiles(x_TD.device)):
        return found
    return triton_tiles.tiles_for(triton_tiles.capability_of(x_TD.device), flops, x_TD.dtype)
