"""The uncertainty of a fit: refits of the same estimator to resampled residuals, all samples at once."""

from __future__ import annotations

import numpy as np

from sparsedial.law.descent import CLOSE, descend
from sparsedial.law.search import Best
from sparsedial.law.surface import Surface

MOST_FOLDS = 250  # more rows than these are left out together


def resample(
    surface: Surface,
    best: Best,
    target: np.ndarray,
    weight: np.ndarray,
    *,
    count: int,
    seed: int,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Points of `count` refits, each to the fitted log losses plus residuals with random signs.

    The grid of a study is a design, not a sample, so rows stay and residuals change sign (a wild bootstrap). A fit
    bends towards its own rows, so each row's residual is that from a fit without it. Every refit is Huber's estimate
    with the threshold of the fit. Rows of one group (`groups` numbers them) are not independent runs: their residuals
    change sign together. What priors expect is drawn anew for each.

    Shapes: target (log losses), weight and groups [n], to [count, free]
    Source: Davidson and Flachaire 2008, "The wild bootstrap, tamed at last", with the residuals of the jackknife, which
    for least squares are HC3's; by groups, Cameron, Gelbach and Miller 2008, "Bootstrap-based improvements for
    inference with clustered errors"
    """
    if not count:
        return np.empty((0, len(best.point)))
    random = np.random.default_rng(seed)
    fitted = surface.log_loss(best.point[None])[0]
    residuals = left_out_residuals(surface, best, target, weight, random)
    groups = np.arange(len(target)) if groups is None else groups
    signs = random.choice([-1.0, 1.0], (count, int(groups.max()) + 1))[:, groups]
    starts = np.tile(best.point, (count, 1))
    drawn = surface.redrawn(count, random)
    return descend(drawn, starts, fitted + signs * residuals, weight, best.threshold, settled=CLOSE)[0]


def left_out_residuals(
    surface: Surface, best: Best, target: np.ndarray, weight: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Each row's log loss less that of a fit to the other rows; of many rows, to those outside its fold."""
    rows = len(target)
    folds = min(rows, MOST_FOLDS)
    fold = random.permutation(rows) % folds if folds < rows else np.arange(rows)
    kept = np.where(np.arange(folds)[:, None] == fold, 0.0, weight)
    starts = np.tile(best.point, (folds, 1))
    points, _ = descend(surface, starts, target, kept, best.threshold, settled=CLOSE)
    return target - surface.log_loss(points)[fold, np.arange(rows)]
