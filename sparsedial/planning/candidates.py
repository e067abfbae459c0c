"""The shapes that a plan chooses from: realistic integer sizes, tens of thousands at once."""

from __future__ import annotations

import functools

import numpy as np

from sparsedial.shape.ladder import RUNGS, Ladder
from sparsedial.shape.shapes import SIZES, Shapes

WIDTHS = (
    *range(64, 1024, 64),
    *range(1024, 2048, 128),
    *range(2048, 4096, 256),
    *range(4096, 8192, 512),
    *range(8192, 16385, 1024),
)
ASPECTS = (64, 96, 128)  # d_model over layers; published models lie between, source: configs in `shape/published.py`
TOP_KS = (1, 2, 4, 6, 8)
RATIOS = (2, 4, 8, 16, 32, 64, 128)  # experts/top_k
MOST_EXPERTS = 512
MOST_TOP_K = 16  # for a ratio that is no power of two
ACTIVE_WIDTHS = (
    8 / 3,
    2,
    4 / 3,
)  # feed-forward channels that a token uses, over d_model; 8/3 gives SwiGLU a plain MLP's size
MULTIPLE = 64  # of expert widths, to fit matrix units
SMALLEST_GROUPED = 2048  # from this width, four query heads share a key and a value


@functools.lru_cache(maxsize=8)  # the dial page asks for the same ones at every change
def candidates(
    *,
    vocab_size: int,
    context: int,
    max_experts: int = MOST_EXPERTS,
    top_ks: tuple[int, ...] = TOP_KS,
    only_ratio: float | None = None,
) -> Shapes:
    """Dense and sparse shapes of every width, depth, granularity and number of experts.

    Heads have 64 channels below width 2048 and 128 from there; every sparse shape has one shared expert; embeddings are
    tied below width 2048. `only_ratio` is the experts/top_k of a law that knows a single one; others stay beside it.
    """
    ratios, top_ks = (RATIOS, top_ks) if only_ratio is None else _with(only_ratio, top_ks)
    rows = [_dense(width, aspect) for width in WIDTHS for aspect in ASPECTS]
    rows += [
        row
        for width in WIDTHS
        for aspect in ASPECTS
        for top_k in top_ks
        for ratio in ratios
        if _is_whole(top_k * ratio)
        if top_k * ratio <= max_experts
        for active in ACTIVE_WIDTHS
        if (row := _sparse(width, aspect, top_k, ratio, active)) is not None
    ]
    table = np.array(rows, dtype=np.int64)
    return Shapes(
        columns={name: table[:, index] for index, name in enumerate(SIZES)},
        common={
            "vocab_size": vocab_size,
            "context": context,
            "qk_norm": "head",
            "gate": "sigmoid",
            "routing_bias": True,
        },
    )


def _attention(width: int, aspect: int) -> tuple[int, int, int, int, int]:
    head_dim = 64 if width < SMALLEST_GROUPED else 128
    heads = width // head_dim
    kv_heads = heads if width < SMALLEST_GROUPED or heads % 4 else heads // 4
    return max(2, round(width / aspect)), width, heads, kv_heads, head_dim


def _dense(width: int, aspect: int) -> tuple[int, ...]:
    return (*_attention(width, aspect), _rounded(width * ACTIVE_WIDTHS[0]), 0, 0, 0, 0)


def _with(ratio: float, top_ks: tuple[int, ...]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """The ratios with one more, and the numbers of chosen experts with those that make its experts whole."""
    if ratio < 1 + 1e-6 or any(abs(ratio - known) < 1e-6 for known in RATIOS):
        return RATIOS, top_ks
    if not any(_is_whole(top_k * ratio) for top_k in top_ks) and len(top_ks) > 1:
        top_ks = (*top_ks, *(top_k for top_k in range(1, MOST_TOP_K + 1) if _is_whole(top_k * ratio)))
    return (*RATIOS, ratio), top_ks


def _is_whole(experts: float) -> bool:
    return abs(experts - round(experts)) < 1e-3


def _sparse(width: int, aspect: int, top_k: int, ratio: float, active: float) -> tuple[int, ...] | None:
    d_expert = width * active / (top_k + 1)
    if d_expert < MULTIPLE / 2:
        return None
    return (*_attention(width, aspect), 0, round(top_k * ratio), top_k, 1, _rounded(d_expert))


def _rounded(width: float) -> int:
    return max(MULTIPLE, MULTIPLE * round(width / MULTIPLE))


@functools.lru_cache(maxsize=8)
def rungs(ladder: Ladder, experts: tuple[int, ...]) -> Shapes:
    """A study's own ladder, every rung with every number of experts that was studied."""
    return Shapes.of([ladder.shape(width, count) for width in RUNGS for count in experts])
