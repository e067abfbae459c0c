"""A form over the rows of a table, in coordinates in which a search walks well, for many laws at once."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sparsedial.law.form import Columns, Form
from sparsedial.records.law import Prior

SLOPE_STEP = 1e-6  # of the numeric slopes by an exponent's coordinate
DECADE = 10.0


@dataclass(frozen=True, kw_only=True)
class Pull:
    """What draws coordinates to where priors expect them: half the stiffness times the squared distance."""

    centre: np.ndarray  # [free], or [laws, free]
    spread: np.ndarray  # standard deviation of what is expected: [free], 0 where nothing is
    stiffness: np.ndarray  # [free], 0 there too

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Shapes: [laws, free] to the same"""
        return points - self.centre

    def energy(self, points: np.ndarray) -> np.ndarray:
        """What it adds to an objective. Shapes: [laws, free] to [laws]"""
        return (self.stiffness * self.distance(points) ** 2).sum(axis=-1) / 2

    def of(self, laws: np.ndarray | slice) -> Pull:
        """That of some of the laws."""
        return self if self.centre.ndim == 1 else replace(self, centre=self.centre[laws])


class Surface:
    """Log loss of a form on the rows of a table, as a function of coordinates.

    A scale's coordinate is the mean size of its term, which hardly moves with the exponents; only signed scales have
    one below 0. An exponent's coordinate is 0 at its lower bound and 1 at its upper, in logs where the bounds lie on
    one side of 0 and span a decade. Pinned coefficients have none.
    """

    def __init__(self, form: Form, columns: Columns, pin: Mapping[str, float]) -> None:
        self.form, self.columns = form, columns
        self.pinned = {form.coefficients.index(name): value for name, value in pin.items()}
        self.names = tuple(name for name in form.coefficients if name not in pin)
        self.scales = [at for at, name in enumerate(form.scales) if name not in pin]
        self.exponents = [at for at, name in enumerate(form.exponents) if name not in pin]
        self._least, self._most = np.array(form.bounds, dtype=float).reshape(-1, 2)[self.exponents].T
        near, far = np.sort(np.abs([self._least, self._most]), axis=0)
        self._logged = (self._least * self._most > 0) & (far >= DECADE * near)
        self._log_ratio = np.log(np.where(self._logged, self._most, 1) / np.where(self._logged, self._least, 1))
        below = [-np.inf if form.scales[at] in form.signed else 0.0 for at in self.scales]
        self.low = np.array([*below, *np.zeros(len(self.exponents))])
        self.high = np.array([*np.full(len(self.scales), np.inf), *np.ones(len(self.exponents))])
        self._place = {scale: place for place, scale in enumerate(self.scales)}  # of a scale among the coordinates
        count = len(form.scales)
        self._kept = np.array([self.pinned.get(count + at, 0.0) for at in range(len(form.exponents))])
        self._rows = len(next(iter(columns.values())))
        nothing = np.zeros(len(self.low))
        self.pull = Pull(centre=nothing, spread=nothing, stiffness=nothing)

    def drawn(self, priors: Mapping[str, Prior], scatter: float) -> Surface:
        """The same, drawn to what priors expect of its free exponents.

        A prior counts as it does for normal noise: one standard deviation from its value costs as much as a run that
        lies `scatter` (of log loss) from the law.
        """
        expected = [priors.get(self.form.exponents[at]) for at in self.exponents]
        values = np.array([prior.value if prior else 1.0 for prior in expected])
        logs = np.array([prior.log_spread if prior else 0.0 for prior in expected])
        centre, spread = np.zeros(len(self.low)), np.zeros(len(self.low))
        centre[len(self.scales) :] = self.exponent_coordinates(values)
        spread[len(self.scales) :] = logs / np.where(self._logged, self._log_ratio, (self._most - self._least) / values)
        stiffness = np.divide(scatter, spread, out=np.zeros(len(spread)), where=spread > 0) ** 2
        return self._pulled(Pull(centre=centre, spread=spread, stiffness=stiffness))

    def redrawn(self, count: int, random: np.random.Generator) -> Surface:
        """The same for so many laws, each drawn to values that its priors themselves leave open."""
        noise = random.standard_normal((count, len(self.low)))
        return self._pulled(replace(self.pull, centre=self.pull.centre + self.pull.spread * noise))

    def _pulled(self, pull: Pull) -> Surface:
        pulled = copy.copy(self)
        pulled.pull = pull
        return pulled

    def exponent_values(self, coordinates: np.ndarray) -> np.ndarray:
        """Exponents between their bounds. Shapes: [laws, free exponents] to the same"""
        along = self._least + coordinates * (self._most - self._least)
        return np.where(self._logged, self._least * np.exp(coordinates * self._log_ratio), along)

    def exponent_coordinates(self, values: np.ndarray) -> np.ndarray:
        """The inverse of `exponent_values`, within the bounds."""
        values = np.clip(values, self._least, self._most)
        along = (values - self._least) / (self._most - self._least)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(values / self._least) / np.log(self._most / self._least)
        return np.where(self._logged, logs, along)

    def term(self, exponents: np.ndarray, scale: int) -> np.ndarray:
        """One term of the form by coordinates of its exponents. Shapes: [laws, free exponents] to [laws, n]"""
        points = np.zeros((len(exponents), len(self.scales) + len(self.exponents)))
        points[:, len(self.scales) :] = exponents
        term = self._terms(self._all_exponents(points))[0][scale]
        return np.broadcast_to(term, (len(exponents), self._rows))

    def _all_exponents(self, points: np.ndarray) -> np.ndarray:
        """All exponents, pinned ones too. Shapes: [laws, free] to [exponents, laws, 1]"""
        full = np.tile(self._kept, (len(points), 1))
        full[:, self.exponents] = self.exponent_values(points[:, len(self.scales) :])
        return full.T[:, :, None]

    def _terms(self, exponents: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The terms, each [laws, n] or [n], and their mean sizes, each [laws, 1] or a number."""
        terms = [np.asarray(term) for term in self.form.terms(exponents, self.columns)]
        sizes = [np.abs(term).sum(axis=-1, keepdims=term.ndim == 2) / term.shape[-1] for term in terms]
        return terms, [np.where(size > 0, size, 1.0) for size in sizes]

    def _heights(self, points: np.ndarray, sizes: list[np.ndarray]) -> list[np.ndarray]:
        """The mean size of each term, pinned ones too: [laws, 1] each."""
        return [
            points[:, self._place[scale], None] if scale in self._place else self.pinned[scale] * size
            for scale, size in enumerate(sizes)
        ]

    def _sum(self, points: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """The form's sum, and its terms of mean size 1. Shapes: [laws, free] to [laws, n]"""
        terms, sizes = self._terms(self._all_exponents(points))
        shapes = [term / size for term, size in zip(terms, sizes, strict=True)]
        heights = self._heights(points, sizes)
        return sum((height * shape for height, shape in zip(heights, shapes, strict=True)), np.zeros(1)), shapes

    def _log(self, total: np.ndarray) -> np.ndarray:
        return total * math.log(10) if self.form.log10 else np.log(total)

    def log_loss(self, points: np.ndarray) -> np.ndarray:
        """Shapes: [laws, free] to [laws, n]"""
        with np.errstate(all="ignore"):
            return self._log(self._sum(points)[0])

    def slopes(self, points: np.ndarray) -> np.ndarray:
        """Slopes of log loss by each coordinate. Shapes: [laws, free] to [laws, free, n]"""
        laws, free = points.shape
        moved = np.tile(points, (1 + len(self.exponents), 1, 1))  # first as they are, then along each exponent
        at = np.arange(len(self.scales), free)
        steps = np.where(points[:, at] < 0.5, SLOPE_STEP, -SLOPE_STEP)  # away from the nearer bound
        moved[1 + np.arange(len(at)), :, at] += steps.T
        with np.errstate(all="ignore"):
            total, shapes = self._sum(moved.reshape(-1, free))
            total = total.reshape(1 + len(at), laws, self._rows)
            found = np.empty((laws, free, self._rows))
            for place, scale in enumerate(self.scales):
                found[:, place] = shapes[scale][:laws] if shapes[scale].ndim == 2 else shapes[scale]
            found[:, at] = ((total[1:] - total[0]) / steps.T[:, :, None]).transpose(1, 0, 2)
            found *= math.log(10) if self.form.log10 else 1 / total[0][:, None]
        return found

    def unpack(self, points: np.ndarray) -> np.ndarray:
        """Coordinates to coefficients in the form's order. Shapes: [laws, free] to [laws, P]"""
        exponents = self._all_exponents(points)
        with np.errstate(all="ignore"):
            sizes = self._terms(exponents)[1]
        heights = self._heights(points, sizes)
        scales = [np.broadcast_to(height / size, (len(points), 1)) for height, size in zip(heights, sizes, strict=True)]
        for scale in set(self.pinned) & set(range(len(scales))):
            scales[scale] = np.full_like(scales[scale], self.pinned[scale])  # without a rounding error
        return np.concatenate([*scales, *exponents], axis=1)

    def points(self, exponents: np.ndarray, loss: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Points at given coordinates of the exponents, with the scales that fit best.

        Relative residuals stand for those of log loss, since they are linear in the scales.

        Shapes: exponents [laws, free exponents], loss and weight [n], to [laws, free]
        """
        found = np.zeros((len(exponents), len(self.scales) + len(self.exponents)))
        found[:, len(self.scales) :] = exponents
        with np.errstate(all="ignore"):
            terms, sizes = self._terms(self._all_exponents(found))
            shapes = [
                np.broadcast_to(term / size, (len(found), self._rows)) for term, size in zip(terms, sizes, strict=True)
            ]
        held = {
            at: np.broadcast_to(value * sizes[at], (len(found), 1))
            for at, value in self.pinned.items()
            if at < len(sizes)
        }
        root = np.sqrt(weight)
        factor, goal = (root, root * np.log10(loss)) if self.form.log10 else (root / loss, root)
        for law in range(len(found)):
            unit = np.stack([shape[law] for shape in shapes], axis=1) * factor[:, None]
            rest = goal - sum((height[law] * unit[:, at] for at, height in held.items()), np.zeros(1))
            if self.scales:
                signed = [self.form.scales[at] in self.form.signed for at in self.scales]
                found[law, : len(self.scales)] = _heights_of(unit[:, self.scales], rest, np.array(signed))
        return found


def _heights_of(terms: np.ndarray, target: np.ndarray, signed: np.ndarray) -> np.ndarray:
    """Nearly least squares: unknowns that may not be below 0 are left out one by one where they would be."""
    found = np.zeros(terms.shape[1])
    if not np.isfinite(terms).all():
        return found + 1.0
    used = np.ones(len(found), dtype=bool)
    while used.any():
        found[:] = 0.0
        found[used] = np.linalg.lstsq(terms[:, used], target, rcond=None)[0]
        below = np.where(signed, 0.0, found)
        if below.min() >= 0:
            break
        used[below.argmin()] = False
    return found
