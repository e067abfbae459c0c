"""Budgets of runs: FLOPs that agree but for rounding, counting or digitising are one budget."""

from __future__ import annotations

import itertools

import numpy as np

AGREE = 0.02
# Noise of 1 % puts 12 runs of a budget over 3 to 4 %, and neighbours among them up to 3 % apart. Studies space their
# budgets by a fifth or more. So neighbours within twice 2 % are taken together, but no budget grows wider than 8 %.
NEIGHBOURS = 2 * AGREE
WIDEST = 4 * AGREE


def snapped(flops: np.ndarray) -> np.ndarray:
    """FLOPs with those that agree within 2 % made equal: each becomes the middle one of its budget.

    FLOPs without budgets, such as those of checkpoints, would hang together from end to end. They are cut into
    stretches of 2 %.
    """
    values = np.unique(flops)
    if not len(values) or not (values > 0).all():
        return flops
    middles = values.copy()
    for start, end in _stretches(values, NEIGHBOURS):
        if values[end - 1] <= values[start] * (1 + WIDEST):
            middles[start:end] = _middle(flops, values[start], values[end - 1])
            continue
        for first, last in _windows(values[start:end]):
            low, high = start + first, start + last
            middles[low:high] = _middle(flops, values[low], values[high - 1])
    return middles[np.searchsorted(values, flops)]


def _stretches(values: np.ndarray, gap: float) -> list[tuple[int, int]]:
    """Where sorted values lie close to their neighbours: the starts and ends of such stretches."""
    cuts = np.flatnonzero(values[1:] > values[:-1] * (1 + gap)) + 1
    edges = [0, *cuts.tolist(), len(values)]
    return list(itertools.pairwise(edges))


def _windows(values: np.ndarray) -> list[tuple[int, int]]:
    """Sorted values from the largest down, in windows of 2 %."""
    windows, end = [], len(values)
    while end:
        start = int(np.searchsorted(values, values[end - 1] / (1 + AGREE)))
        windows.append((start, end))
        end = start
    return windows


def _middle(flops: np.ndarray, low: float, high: float) -> float:
    """The middle entry from `low` to `high`, so that exact budgets with few entries beside them stay exact."""
    inside = flops[(flops >= low) & (flops <= high)]
    return float(np.quantile(inside, 0.5, method="nearest"))
