"""Weights in memory with large pages (2 MiB), where Linux has them.

Decoding reads all weights for each token, and with pages of 4 KiB it also waits for their addresses. A dense model of
135 M parameters decodes 1.2 to 1.3 times as fast from large pages, on two Zen 4 cores (LOG.md, 2026-11-30).
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import torch
from torch import Tensor, nn

PAGE_BYTES = 2 << 20
LINE_BYTES = 64  # of a cache; where each weight begins


def put_in_large_pages(model: nn.Module) -> None:
    """Give the weights on the CPU places in one block, one after the other. Their values are not kept."""
    weights = [weight for weight in model.parameters() if weight.device.type == "cpu"]
    places = [0]
    for weight in weights:
        places.append(places[-1] + -(-weight.nbytes // LINE_BYTES) * LINE_BYTES)
    block_N = large_block(places.pop())
    if block_N is not None:
        for weight, place in zip(weights, places, strict=True):
            weight.data = block_N[place : place + weight.nbytes].view(weight.dtype).view(weight.shape)


def empty_in_large_pages(sizes: Sequence[int], dtype: torch.dtype) -> Tensor:
    """As `torch.empty`, on the CPU."""
    empty = torch.empty(tuple(sizes), dtype=dtype)  # takes no memory before it is written
    block_N = large_block(empty.nbytes)
    return empty if block_N is None else block_N.view(dtype).view(empty.shape)


def large_block(count: int) -> Tensor | None:
    """So many bytes that begin where a large page does; None where a page is not filled, or there are no large ones."""
    if count < PAGE_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    try:
        block = mmap.mmap(-1, count + PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        block.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # a kernel that was built without them, or a limit on what may be mapped
        return None
    bytes_N = torch.frombuffer(block, dtype=torch.uint8)
    return bytes_N[-bytes_N.data_ptr() % PAGE_BYTES :][:count]
