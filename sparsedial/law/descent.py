"""Huber's objective made least by Levenberg and Marquardt's method, for many laws at once."""

from __future__ import annotations

import numpy as np

from sparsedial.law.surface import Pull, Surface

STEPS = 200
EXACT = 1e-10  # relative fall of the objective in one step below which a search has settled
CLOSE = 1e-5  # the same for resampled tables, whose chance is far larger
NOTHING = 1e-18  # mean objective that rounding errors give
BOUNDS_AT_ONCE = 4  # rounds in which coordinates are stopped at their bounds
AT_ONCE = 60_000  # laws times rows: more would leave the processor's cache


def huber(residuals: np.ndarray, weight: np.ndarray, threshold: float) -> np.ndarray:
    """Half the square up to the threshold, linear beyond, summed over the rows. Shapes: [laws, n] to [laws]"""
    size = np.abs(residuals)
    inner = np.minimum(size, threshold)
    return (weight * inner * (size - inner / 2)).sum(axis=-1)


def descend(
    surface: Surface,
    points: np.ndarray,
    targets: np.ndarray,
    weight: np.ndarray,
    threshold: float = np.inf,
    *,
    settled: float = EXACT,
    steps: int = STEPS,
) -> tuple[np.ndarray, np.ndarray]:
    """The points at which Huber's objective is least near the given ones, and the objective there.

    Where the surface is drawn to some coordinates, that counts too.

    Shapes: points [laws, free], targets (log losses) and weight [laws, n] or [n], to [laws, free] and [laws]
    """
    laws, rows = len(points), targets.shape[-1]
    if not laws:
        return points, np.empty(0)
    targets, weight = np.broadcast_to(targets, (laws, rows)), np.broadcast_to(weight, (laws, rows))
    size = max(1, AT_ONCE // rows)
    parts = [slice(start, start + size) for start in range(0, laws, size)]
    found = [
        _descend(surface, surface.pull.of(part), points[part], targets[part], weight[part], threshold, settled, steps)
        for part in parts
    ]
    return np.concatenate([point for point, _ in found]), np.concatenate([value for _, value in found])


def _descend(
    surface: Surface,
    pull: Pull,
    points: np.ndarray,
    targets: np.ndarray,
    weight: np.ndarray,
    threshold: float,
    settled: float,
    steps: int,
) -> tuple[np.ndarray, np.ndarray]:
    points = np.clip(points, surface.low, surface.high)
    residuals = surface.log_loss(points) - targets
    values = _finite(huber(residuals, weight, threshold) + pull.energy(points))
    damping, rise = np.full(len(points), 1e-3), np.full(len(points), 2.0)
    still = np.arange(len(points)) if points.shape[1] else np.empty(0, dtype=int)
    for _ in range(steps):
        if not len(still):
            break
        some = pull.of(still)
        moves, slope = _moves(surface, some, points[still], residuals[still], weight[still], threshold, damping[still])
        moved = np.clip(points[still] + moves, surface.low, surface.high)
        there = surface.log_loss(moved) - targets[still]
        after = _finite(huber(there, weight[still], threshold) + some.energy(moved))
        fall = values[still] - after
        better = fall > 0
        small = settled * values[still] + NOTHING * weight[still].sum(axis=1)
        near = (damping[still] <= 1e-2) & (np.where(better, fall, 0.0) <= small)
        done = np.where(better, near, near & (slope <= small) | (damping[still] > 1e8))
        taken = still[better]
        points[taken], residuals[taken], values[taken] = moved[better], there[better], after[better]
        damping[still] = np.clip(damping[still] * np.where(better, 0.1, rise[still]), 1e-7, 1e9)
        rise[still] = np.where(better, 2.0, 2 * rise[still])  # Nielsen 1999: a narrow valley wants little, a wall much
        still = still[~done]
    return points, values


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.inf)


def _moves(
    surface: Surface,
    pull: Pull,
    points: np.ndarray,
    residuals: np.ndarray,
    weight: np.ndarray,
    threshold: float,
    damping: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The next step of every law, and the fall that its slope promises.

    Coordinates that would leave their bounds go to them, and the others move as fits that.

    With little damping it is Newton's step, for which rows beyond the threshold have no curvature; with more it is that
    of reweighted least squares, which always descends but slowly; with most, a short one down the slope.

    Shapes: points [laws, free], residuals and weight [laws, n], damping [laws], to [laws, free] and [laws]
    """
    slopes = np.nan_to_num(surface.slopes(points), posinf=0.0, neginf=0.0)
    residuals = np.nan_to_num(residuals, posinf=1e3, neginf=-1e3)
    size = np.abs(residuals)
    reweighted = np.minimum(1.0, threshold / np.maximum(size, 1e-300))
    curvature = weight * np.where(size <= threshold, 1.0, reweighted * np.minimum(damping, 1.0)[:, None])
    across = slopes.transpose(0, 2, 1)
    normal = (slopes * curvature[:, None, :]) @ across
    gradient = (slopes @ (weight * reweighted * residuals)[:, :, None])[:, :, 0]
    gradient += pull.stiffness * pull.distance(points)
    steep = np.einsum("bfn,bfn,bn->bf", slopes, slopes, weight * reweighted)
    extra = damping[:, None] * steep + 1e-12 * np.maximum(steep.max(axis=1, keepdims=True), 1e-12)
    at = np.arange(points.shape[1])
    normal[:, at, at] += extra + pull.stiffness
    moves = -np.linalg.solve(normal, gradient[:, :, None])[:, :, 0]
    beyond = np.zeros(points.shape, dtype=bool)
    for _ in range(BOUNDS_AT_ONCE):
        over = (points + moves < surface.low) | (points + moves > surface.high)
        if not (over & ~beyond).any():
            break
        beyond |= over
        to_bound = np.where(beyond, np.clip(points + moves, surface.low, surface.high) - points, 0.0)
        left = gradient + (normal @ to_bound[:, :, None])[:, :, 0]
        held = np.where(beyond[:, :, None] | beyond[:, None, :], np.eye(points.shape[1]), normal)
        moves = np.linalg.solve(held, np.where(beyond, to_bound, -left)[:, :, None])[:, :, 0]
    return moves, np.abs(gradient * moves).sum(axis=1)
