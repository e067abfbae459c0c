"""The uncertainty of a fit: refits to resampled residuals, all samples at once."""

from __future__ import annotations

import numpy as np

from sparsedial.law.form import Columns, Form

STEPS = 40  # of Levenberg and Marquardt's method, at most
SLOPE_STEP = 1e-6  # of the numeric slopes
SETTLED = 1e-7  # relative change of the sum of squares
MOST_LEVERAGE = 0.9
LEAST_WHOLE = 0.25  # share of rows with full weight; fewer would say too little about the slope


def resample(
    form: Form,
    values: np.ndarray,
    fixed: np.ndarray,
    columns: Columns,
    loss: np.ndarray,
    weights: np.ndarray,
    *,
    count: int,
    seed: int,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Coefficients of `count` refits, each to the fitted log losses plus residuals with random signs.

    The grid of a study is a design, not a sample, so rows stay and residuals change sign (a wild bootstrap); each is
    first divided by one minus its leverage, since a fit bends towards its own rows. The refits are least squares with
    Huber's weights kept, which moves less than Huber's estimate does; residuals are widened to make up for it.
    Coefficients marked in `fixed` stay; a scale that the fit put at 0 may rise. Rows of one group (`groups` numbers
    them) are not independent runs: their residuals change sign together.

    Shapes: values [P], loss, weights and groups [n], to [count, P]
    Source: Davidson and Flachaire 2008, "The wild bootstrap, tamed at last", with HC3 residuals; by groups, Cameron,
    Gelbach and Miller 2008, "Bootstrap-based improvements for inference with clustered errors"
    """
    coordinates = _Coordinates(form, values, fixed, columns)
    start = coordinates.pack(values)
    if not count or not len(start):
        return np.tile(values, (count, 1))
    fitted = np.log(form.loss(values, columns))
    root = np.sqrt(weights)
    slopes = _slopes(form, coordinates, columns, start[None], fitted[None])[0] * root[:, None]
    leverage = np.minimum((np.linalg.qr(slopes)[0] ** 2).sum(axis=1), MOST_LEVERAGE)
    groups = np.arange(len(loss)) if groups is None else groups
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (count, int(groups.max()) + 1))[:, groups]
    targets = fitted + signs * (np.log(loss) - fitted) / (1 - leverage) * stiffness(weights)
    found = _refit(form, coordinates, columns, np.tile(start, (count, 1)), targets, root)
    return coordinates.unpack(found)


def stiffness(weights: np.ndarray) -> float:
    """How many times less a row moves least squares with fixed weights than the Huber estimate that gave the weights.

    Source: Huber and Ronchetti 2009, "Robust Statistics", section 7.6: psi over the mean slope of psi
    """
    return float(weights.mean() / max((weights == 1).mean(), LEAST_WHOLE))


class _Coordinates:
    """The free coefficients on scales of their own: logs of positive scales, others by their size, exponents."""

    def __init__(self, form: Form, values: np.ndarray, fixed: np.ndarray, columns: Columns) -> None:
        scales = len(form.scales)
        self.values = values
        self.free = [at for at in range(len(values)) if not fixed[at]]
        self.logged = np.array(
            [at < scales and form.scales[at] not in form.signed and values[at] > 0 for at in self.free]
        )
        sizes = [*_scale_sizes(form, values, columns), *np.ones(len(values) - scales)]
        self.size = np.array([sizes[at] for at in self.free])
        unsigned = [(0.0, np.inf) if name not in form.signed else (-np.inf, np.inf) for name in form.scales]
        bounds = [*unsigned, *form.bounds]
        limits = np.array([bounds[at] for at in self.free], dtype=float).reshape(-1, 2)
        limits[self.logged] = -np.inf, np.inf
        self.low, self.high = limits.T

    def pack(self, values: np.ndarray) -> np.ndarray:
        """[P] to the free coordinates."""
        relative = values[self.free] / self.size
        return np.where(self.logged, np.log(np.maximum(relative, 1e-300)), relative)

    def unpack(self, points: np.ndarray) -> np.ndarray:
        """Coordinates [samples, free] to coefficients [samples, P]."""
        full = np.tile(self.values, (len(points), 1))
        full[:, self.free] = np.where(self.logged, np.exp(np.minimum(points, 300)), points) * self.size
        return full

    def inside(self, points: np.ndarray) -> np.ndarray:
        """The points moved within the bounds."""
        return np.clip(points, self.low, self.high)

    def leaving(self, points: np.ndarray, moves: np.ndarray) -> np.ndarray:
        """Where a point on a bound would move beyond it."""
        return ((points <= self.low) & (moves < 0)) | ((points >= self.high) & (moves > 0))


def _scale_sizes(form: Form, values: np.ndarray, columns: Columns) -> np.ndarray:
    """A scale's own size; for a scale at 0, the value that would make its term as large as the whole sum."""
    scales = values[: len(form.scales)]
    design = np.abs(form.design(values[len(form.scales) :], columns)).mean(axis=0)
    whole = np.abs(form.sum(values, columns)).mean()
    return np.where(scales != 0, np.abs(scales), whole / np.maximum(design, 1e-300))


def _log_loss(form: Form, coordinates: _Coordinates, columns: Columns, points: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return np.log(form.loss(coordinates.unpack(points), columns))


def _slopes(
    form: Form, coordinates: _Coordinates, columns: Columns, points: np.ndarray, here: np.ndarray
) -> np.ndarray:
    """Slopes of log loss. Shapes: points [samples, free], here [samples, n], to [samples, n, free]"""
    sides = []
    for at in range(points.shape[1]):
        step = SLOPE_STEP * max(1.0, float(np.abs(points[:, at]).max()))
        moved = points.copy()
        moved[:, at] += step
        sides.append((_log_loss(form, coordinates, columns, moved) - here) / step)
    return np.stack(sides, axis=2)


def _refit(
    form: Form, coordinates: _Coordinates, columns: Columns, points: np.ndarray, targets: np.ndarray, root: np.ndarray
) -> np.ndarray:
    """Levenberg and Marquardt's method on all samples at once."""
    damping = np.full(len(points), 1e-3)
    here = _log_loss(form, coordinates, columns, points)
    squares = (((here - targets) * root) ** 2).sum(axis=1)
    for _ in range(STEPS):
        slopes = _slopes(form, coordinates, columns, points, here) * root[:, None]
        residuals = (here - targets) * root
        normal = np.einsum("bni,bnj->bij", slopes, slopes)
        gradient = np.einsum("bni,bn->bi", slopes, residuals)
        diagonal = np.einsum("bii->bi", normal)
        normal = normal + np.einsum("bi,ij->bij", diagonal * damping[:, None] + 1e-12, np.eye(normal.shape[1]))
        moved = coordinates.inside(points + _moves(coordinates, points, normal, gradient))
        there = _log_loss(form, coordinates, columns, moved)
        after = (((there - targets) * root) ** 2).sum(axis=1)
        better = after < squares  # also false where the loss overflowed
        settled = ~better | (squares - after <= SETTLED * squares)
        points[better], here[better] = moved[better], there[better]
        squares = np.where(better, after, squares)
        damping = np.clip(np.where(better, damping / 5, damping * 8), 1e-9, 1e9)
        if (settled & (better | (damping > 1e6))).all():
            break
    return points


def _moves(coordinates: _Coordinates, points: np.ndarray, normal: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Newton's step of every sample; coordinates that would leave their bounds stay, and the others move without them.

    Shapes: points and gradient [samples, free], normal [samples, free, free], to [samples, free]
    """
    moves = -np.linalg.solve(normal, gradient[:, :, None])[:, :, 0]
    stays = coordinates.leaving(points, moves)
    if stays.any():
        held = np.where(stays[:, :, None] | stays[:, None, :], np.eye(points.shape[1]), normal)
        moves = -np.linalg.solve(held, np.where(stays, 0.0, gradient)[:, :, None])[:, :, 0]
    return moves
