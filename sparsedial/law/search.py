"""The best fit of a form: from many starts, until it is found again from elsewhere."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from sparsedial.law.descent import CLOSE, descend
from sparsedial.law.surface import Surface

HUBER_FLOOR = 1e-3  # in log loss
HUBER_TUNING = 1.345  # times the robust spread: 95 % efficient on normal noise
NORMAL = 1.4826  # the standard deviation of normal noise over the median of its size
ROUNDS = 60  # of the threshold that follows the spread
STEADY = 1e-5  # relative change of that threshold
FIRST_STARTS, MORE_STARTS, MOST_STARTS = 24, 40, 100
ROUGHLY, ROUGH_STEPS = 1e-3, 40  # how far every start is followed
NEAR, NEAR_STEPS = 1.1, 60  # times the least squares found: those starts are followed farther
NOTHING = 1e-15  # an objective per run that rounding errors give
POLISHED = 8  # of the best ones, which are followed to the end
AGAIN = 3  # starts that must lead to the best objective
SAME = 1e-5  # relative difference of two objectives that are one
PRIMES = (2, 3, 5, 7, 11, 13, 17, 19)
SKIPPED = 20  # first points of the sequence, which lie on a line where the primes are large


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best point that a search found."""

    point: np.ndarray  # coordinates on the surface
    threshold: float  # in log loss
    objective: float
    again: int  # starts that led to this objective
    starts: int


def robust_spread(residuals: np.ndarray, weight: np.ndarray) -> float:
    """The standard deviation that normal noise with this median size has; rows count by weight."""
    order = np.argsort(np.abs(residuals))
    shares = (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
    return NORMAL * float(np.interp(0.5, shares, np.abs(residuals)[order]))


def search(surface: Surface, target: np.ndarray, weight: np.ndarray, stated: float | None) -> Best:
    """Huber's estimate: the lowest objective of all starts, which are added until it is found again.

    `stated` is the threshold in log loss; by default it follows the spread of the residuals, and both are iterated
    until neither moves.

    Shapes: target (log losses) and weight [n]
    """
    even, values = np.empty((0, len(surface.names))), np.empty(0)  # least squares, and Huber's objective from there
    squares, robust, ended = np.empty(0), even, np.empty(0, dtype=bool)
    begun, threshold, least = 0, stated or 0.0, np.inf
    while True:
        starts = surface.points(_starts(surface, begun), np.exp(target), weight)
        begun += len(starts)
        fresh, fresh_squares = descend(surface, starts, target, weight, settled=ROUGHLY, steps=ROUGH_STEPS)
        far = NEAR * min(least, fresh_squares.min()) + NOTHING * len(target)
        near = fresh_squares <= (far if stated is None else np.inf)  # a small threshold may order them otherwise
        fresh, fresh_squares = descend(surface, fresh[near], target, weight, settled=CLOSE, steps=NEAR_STEPS)
        even, squares = np.concatenate([even, fresh]), np.concatenate([squares, fresh_squares])
        if squares.min() < least * (1 - SAME):  # a better fit has a threshold of its own
            least = squares.min()
            threshold = stated or _settled_threshold(surface, even[squares.argmin()], target, weight)
            robust, values, ended, fresh = robust[:0], values[:0], ended[:0], even
        close, close_values = descend(surface, fresh, target, weight, threshold, settled=CLOSE, steps=NEAR_STEPS)
        robust, values = np.concatenate([robust, close]), np.concatenate([values, close_values])
        ended = np.concatenate([ended, np.zeros(len(close), dtype=bool)])
        first = np.argsort(values)[:POLISHED]
        first = first[~ended[first]]
        ended[first] = True
        robust[first], values[first] = descend(surface, robust[first], target, weight, threshold)
        best = int(values.argmin())
        again = int((values <= values[best] * (1 + SAME) + NOTHING * len(target)).sum())
        if again >= min(AGAIN, begun) or begun >= MOST_STARTS:
            return Best(
                point=robust[best], threshold=threshold, objective=float(values[best]), again=again, starts=begun
            )


def _settled_threshold(surface: Surface, point: np.ndarray, target: np.ndarray, weight: np.ndarray) -> float:
    """The threshold that follows the spread of the residuals of its own estimate."""
    points, before = point[None], np.inf
    for _ in range(ROUNDS):
        residuals = surface.log_loss(points)[0] - target
        threshold = max(HUBER_FLOOR, HUBER_TUNING * robust_spread(residuals, weight))
        if abs(threshold - before) <= STEADY * threshold:
            break
        points, before = descend(surface, points, target, weight, threshold, settled=CLOSE)[0], threshold
    return threshold


def _starts(surface: Surface, begun: int) -> np.ndarray:
    """Coordinates of exponents to start from: first a form's own, then points spread over the bounds.

    Shapes: to [starts, free exponents]
    """
    if not surface.exponents:
        return np.empty((1, 0))
    if begun:
        return spread_points(begun, MORE_STARTS, len(surface.exponents))
    grid = list(itertools.product(*(surface.form.starts[at] for at in surface.exponents)))
    return surface.exponent_coordinates(np.array(grid[:: max(1, len(grid) // FIRST_STARTS)]))


def spread_points(first: int, count: int, axes: int) -> np.ndarray:
    """Halton's points in the unit cube. Source: Halton 1960, doi 10.1007/BF01386213"""
    numbers = np.arange(first, first + count) + SKIPPED
    return np.stack([_reversed_digits(numbers, base) for base in PRIMES[:axes]], axis=1)


def _reversed_digits(numbers: np.ndarray, base: int) -> np.ndarray:
    found, unit, left = np.zeros(len(numbers)), 1.0, numbers.copy()
    while left.any():
        unit /= base
        found += unit * (left % base)
        left //= base
    return found
