"""AdamW on a GPU in one pass over weights, moments, gradients and the copies that products read, in Triton.

One launch takes many tensors: a table holds their addresses, and a program finds its tensor by the blocks before it.
N tensors.
"""

# pyright: reportGeneralTypeIssues=false
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from sparsedial.kernels import triton_launch

BLOCK = 4096  # values of a program
TENSORS = 64  # of the table that a program reads at once
COLUMNS = 8  # of the table, in the kernel's order
ALIGNMENT, GROUP = 16, 4  # bytes of addresses, and values of tensors, that let a thread read several values at once
TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
Addresses = tuple[tuple[int, ...], ...]
Row = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]  # weight, gradient, moments, step, copy


@triton.jit
def _values(address, TYPE: tl.constexpr, WIDE: tl.constexpr):
    """Where a tensor's values lie. An address from a table says nothing of itself, so that it must be said here."""
    values = tl.load(address).to(tl.pointer_type(TYPE))  # pyright: ignore[reportArgumentType]
    return tl.multiple_of(values, 16) if WIDE else values


@triton.jit(do_not_specialize=["tensors"])
def _adamw_kernel(
    table, tensors, rate_at, rate, found_inf, gradient_scale, beta1, beta2, log2_beta1, log2_beta2, epsilon, decay,
    RATE_ON_DEVICE: tl.constexpr, GRADIENT: tl.constexpr, COPIED: tl.constexpr, COPY: tl.constexpr,
    WIDE: tl.constexpr, TENSORS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One step of one block of one tensor; nothing where `found_inf` is not zero. `step` is already the new one.

    WIDE: all addresses are multiples of 16, and all sizes of 4.
    """
    if tl.load(found_inf) != 0:
        return
    program = tl.program_id(0)
    before = 0
    for first_tensor in range(0, tensors, TENSORS):
        tensor = first_tensor + tl.arange(0, TENSORS)
        ends = tl.load(table + tensor * COLUMNS + 7, mask=tensor < tensors, other=2147483647)
        before += tl.sum((ends <= program).to(tl.int32), 0)
    row = table + before * COLUMNS
    size = tl.load(row + 6)
    if WIDE:
        size = tl.multiple_of(size, 4)
    block = program - (tl.load(row + 7) - (size + BLOCK - 1) // BLOCK)
    at = block * BLOCK + tl.arange(0, BLOCK).to(tl.int64)
    own = at < size
    weights, gradients = _values(row, tl.float32, WIDE) + at, _values(row + 1, GRADIENT, WIDE) + at
    firsts, seconds = _values(row + 2, tl.float32, WIDE) + at, _values(row + 3, tl.float32, WIDE) + at
    step = tl.load(tl.load(row + 4).to(tl.pointer_type(tl.float32)))
    if RATE_ON_DEVICE:
        rate = tl.load(rate_at).to(tl.float32)
    gradient = tl.load(gradients, mask=own, other=0.0).to(tl.float32) / tl.load(gradient_scale)
    first = beta1 * tl.load(firsts, mask=own, other=0.0) + (1 - beta1) * gradient
    second = beta2 * tl.load(seconds, mask=own, other=0.0) + (1 - beta2) * gradient * gradient
    weight = tl.load(weights, mask=own, other=0.0) * (1 - rate * decay)
    spread = tl.sqrt(second) / tl.sqrt(1 - tl.exp2(step * log2_beta2)) + epsilon
    weight -= rate / (1 - tl.exp2(step * log2_beta1)) * first / spread
    tl.store(firsts, first, mask=own)
    tl.store(seconds, second, mask=own)
    tl.store(weights, weight, mask=own)
    if COPIED:
        tl.store(_values(row + 5, COPY, WIDE) + at, weight.to(COPY), mask=own)


@dataclass(frozen=True)
class Constants:
    """What is the same for all tensors of a launch."""

    rate: float | Tensor  # a number, or one on the device
    beta1: float
    beta2: float
    epsilon: float
    decay: float


@dataclass
class Tables:
    """Tables of addresses on the device, each sent again only where its addresses have changed."""

    held: dict[object, tuple[Addresses, Tensor]] = field(default_factory=dict)
    unfilled: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # of a step that is being captured

    def table(self, key: object, rows: Addresses, device: torch.device) -> Tensor:
        """The table with these rows. While a step is captured as a graph it is filled later, by `fill`."""
        if key not in self.held or self.held[key][0] != rows:
            numbers = torch.tensor(rows, dtype=torch.int64)
            if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
                table = torch.empty_like(numbers, device=device)
                self.unfilled.append((table, numbers))
            elif device.type == "cuda":
                table = numbers.pin_memory().to(device, non_blocking=True)
            else:
                table = numbers
            self.held[key] = rows, table
        return self.held[key][1]

    def forget(self) -> None:
        """Forget all tables: those of a step whose capture failed were never filled."""
        self.held.clear()
        self.unfilled.clear()

    def fill(self) -> list[Tensor]:
        """Fill the tables of a captured step; the graph reads them as long as it is replayed."""
        for table, numbers in self.unfilled:
            table.copy_(numbers)
        filled, self.unfilled = [table for table, _ in self.unfilled], []
        self.held.clear()
        return filled


def adamw(
    tables: Tables,
    key: object,
    tensors: Sequence[Row],
    constants: Constants,
    found_inf: Tensor,
    gradient_scale: Tensor,
) -> None:
    """One step of tensors whose gradients are of one type, and whose copies are of one type or all missing.

    All are contiguous, and float32 but for gradient and copy. PyTorch does not see that they change: their version
    counters stay as they are.
    """
    weight, gradient, *_, copied = tensors[0]
    sizes = [row[0].numel() for row in tensors]
    ends = list(accumulate(triton_launch.blocks_in(size, BLOCK) for size in sizes))
    on_device = isinstance(constants.rate, Tensor)
    with triton_launch.on(weight):
        triton_launch.launch(
            _adamw_kernel, (ends[-1],), _table(tables, key, tensors, sizes, ends), len(tensors),
            constants.rate if on_device else found_inf, 0.0 if on_device else constants.rate, found_inf, gradient_scale,
            constants.beta1, constants.beta2, _log2(constants.beta1), _log2(constants.beta2), constants.epsilon,
            constants.decay, warps=8, RATE_ON_DEVICE=on_device, GRADIENT=TYPES[gradient.dtype],
            COPIED=copied is not None, COPY=TYPES[torch.float32 if copied is None else copied.dtype],
            WIDE=all(map(_wide, tensors)), TENSORS=TENSORS, COLUMNS=COLUMNS, BLOCK=BLOCK,
        )  # fmt: skip


def _table(
    tables: Tables, key: object, tensors: Sequence[Sequence[Tensor | None]], sizes: Sequence[int], ends: Sequence[int]
) -> Tensor:
    rows = tuple(
        (*(0 if tensor is None else tensor.data_ptr() for tensor in row), size, end)
        for row, size, end in zip(tensors, sizes, ends, strict=True)
    )
    device = tensors[0][0].device  # pyright: ignore[reportOptionalMemberAccess]
    return tables.table(key, rows, device)


def _wide(row: Row) -> bool:
    """Whether a thread may read several of a row's values at once. (Each allocation is aligned, but a part of one may
    begin anywhere.)
    """
    held = (tensor for tensor in row if tensor is not None and tensor.dim())
    return all(
        tensor.numel() % GROUP == 0 and tensor.storage_offset() * tensor.element_size() % ALIGNMENT == 0
        for tensor in held
    )


def _log2(beta: float) -> float:
    return math.log2(beta) if beta else -math.inf
