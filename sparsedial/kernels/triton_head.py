"""Cross-entropy and its gradient in Triton: one program a token, the gradient in the place of the logits.

N tokens, V vocabulary.
"""

# pyright: reportGeneralTypeIssues=false
from __future__ import annotations

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

from sparsedial.kernels import triton_launch

MOST_BLOCK = 4096  # words of a row that a program holds at a time


@triton.jit
def _bounded(logits, known, cap, CAPPED: tl.constexpr):
    """Logits as the softmax takes them; minus infinity beyond the vocabulary."""
    z = tl.load(logits, mask=known, other=0.0).to(tl.float32)
    if CAPPED:
        z = cap * (2 * tl.sigmoid(2 * z / cap) - 1)
    return tl.where(known, z, float("-inf"))


@triton.jit
def _cross_entropy_kernel(
    logits, target, share, each, words, cap, LEARNING: tl.constexpr, CAPPED: tl.constexpr, BLOCK: tl.constexpr
):
    """each = log sum exp(z) - z[target]; and where LEARNING, logits = share * (softmax(z) - [target]) dz/dlogits."""
    row = tl.program_id(0)
    start = logits + row.to(tl.int64) * words
    word = tl.load(target + row)
    own = tl.sum(_bounded(start + word + tl.arange(0, 1), tl.arange(0, 1) == 0, cap, CAPPED), 0)  # before it is changed
    largest = tl.full((), float("-inf"), tl.float32)
    total = tl.zeros((), tl.float32)
    for first in range(0, words, BLOCK):
        column = first + tl.arange(0, BLOCK)
        z = _bounded(start + column, column < words, cap, CAPPED)
        above = tl.maximum(largest, tl.max(z, 0))
        total = total * tl.exp(largest - above) + tl.sum(tl.exp(z - above), 0)
        largest = above
    normaliser = largest + tl.log(total)
    tl.store(each + row, normaliser - own)
    if LEARNING:
        weight = tl.load(share + row)
        for first in range(0, words, BLOCK):
            column = first + tl.arange(0, BLOCK)
            z = _bounded(start + column, column < words, cap, CAPPED)
            slope = (tl.exp(z - normaliser) - (column == word).to(tl.float32)) * weight
            if CAPPED:
                share_of_cap = tl.where(column < words, z / cap, 0.0)
                slope *= 1 - share_of_cap * share_of_cap
            tl.store(start + column, slope.to(logits.dtype.element_ty), mask=column < words)


def cross_entropy(logits_NV: Tensor, target_N: Tensor, share_N: Tensor | None, each_N: Tensor, cap: float) -> None:
    """Equals `head.cross_entropy`."""
    (tokens, words), learning = logits_NV.shape, share_N is not None
    block = min(MOST_BLOCK, triton.next_power_of_2(words))
    with triton_launch.on(logits_NV):
        triton_launch.launch(
            _cross_entropy_kernel, (tokens,), logits_NV, target_N, share_N if learning else each_N, each_N, words, cap,
            warps=4 if block < MOST_BLOCK else 8, LEARNING=learning, CAPPED=cap > 0, BLOCK=block,
        )  # fmt: skip
