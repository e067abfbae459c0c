"""Coefficients that the runs leave open, and with which others they can trade."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from sparsedial.law.form import Form
from sparsedial.law.surface import Surface

DECADE = 10.0
FLAT = 1e-5  # of the largest singular value of the unit-scaled slopes
FLAT_SHARE = 0.03  # in a flat direction, above which a coefficient moves with it
TOGETHER = 0.1  # how much two coefficients share of the flat directions, above which they trade
STEP = 1e-5  # of the slopes, of a scale or of an exponent's bounds
IDLE = 1e-8  # of the largest slope: less is no effect
MATCHING_STEPS = 12
FAINT = 3.0  # times the runs' scatter: terms that differ by less in all rows together are one to these runs
EXACTLY = 1e-6  # relative difference of two terms that are one


def undetermined(
    form: Form, samples: np.ndarray, tail: float, open_: Mapping[str, object], pinned: Mapping[str, float]
) -> tuple[str, ...]:
    """Coefficients that the data do not determine.

    They are open, or their interval touches 0 or a bound, or spans a decade. Shapes: samples [count, P]
    """
    if not len(samples):
        return ()
    low, high = np.quantile(samples, [tail, 1 - tail], axis=0)
    loose = {
        name: _spans_much(low[at], high[at])
        if name in form.scales
        else _touches(low[at], high[at], form.bounds[form.exponents.index(name)])
        for at, name in enumerate(form.coefficients)
    }
    return tuple(name for name in form.coefficients if name not in pinned and (loose[name] or name in open_))


def _spans_much(low: float, high: float) -> bool:
    """Whether an interval holds 0 or spans a decade; it may lie below 0."""
    return low * high <= 0 or max(abs(low), abs(high)) > DECADE * min(abs(low), abs(high))


def _touches(low: float, high: float, bounds: tuple[float, float]) -> bool:
    edge = 1e-3 * (bounds[1] - bounds[0])
    return low <= bounds[0] + edge or high >= bounds[1] - edge or low * high <= 0


def open_coefficients(surface: Surface, point: np.ndarray, scatter: float) -> dict[str, tuple[str, ...]]:
    """The coefficients that this design cannot tell, whatever its losses, each with those that can take its place.

    One without a partner has no effect on these runs. Two reasons are looked for: directions along which the log
    losses do not change, and terms that can take each other's place with other exponents. `scatter` is that of the
    runs around the law, in log loss: a difference far below it cannot be told.

    Shapes: point [free]
    """
    partners = _flat_directions(surface, point)
    for names in _exchangeable(surface, point, scatter):
        for own, other in (names, names[::-1]):
            for name in own:
                partners.setdefault(name, set()).update(other)
    order = surface.form.coefficients
    return {name: tuple(other for other in order if other in partners[name]) for name in order if name in partners}


def _flat_directions(surface: Surface, point: np.ndarray) -> dict[str, set[str]]:
    """Coefficients with a share in a direction along which nothing changes, and the others with a share in it."""
    slopes = _slopes(surface, point)
    lengths = np.linalg.norm(slopes, axis=0)
    idle = lengths <= IDLE * lengths.max()
    found = {surface.names[at]: _owners(surface, point, surface.names[at]) for at in np.flatnonzero(idle)}
    names = [surface.names[at] for at in np.flatnonzero(~idle)]
    _, sizes, directions = np.linalg.svd(slopes[:, ~idle] / lengths[~idle], full_matrices=False)
    null = directions[sizes < FLAT * sizes[0]]
    shares = null.T @ null
    moving = np.flatnonzero(np.diag(shares) > FLAT_SHARE)
    for at in moving:
        least = TOGETHER * np.sqrt(shares[at, at] * shares[moving, moving])
        found[names[at]] = {names[other] for other in moving[np.abs(shares[at, moving]) > least] if other != at}
    return found


def _slopes(surface: Surface, point: np.ndarray) -> np.ndarray:
    """Slopes of log loss by each free coefficient, from both sides: one-sided ones hide a flat direction.

    Shapes: point [free] to [n, free]
    """
    law, form = surface.unpack(point[None])[0], surface.form
    ranges = [*np.abs(law[: len(form.scales)]), *(most - least for least, most in form.bounds)]
    unit = surface.unpack(np.concatenate([np.ones(len(surface.scales)), point[len(surface.scales) :]])[None])[0]
    slopes = []
    for name in surface.names:
        at = form.coefficients.index(name)
        step = STEP * (ranges[at] or abs(unit[at]))  # for a scale at 0, of the one that makes its term 1
        moved = law + step * np.eye(len(law))[[at, at]] * [[1], [-1]]
        with np.errstate(all="ignore"):
            ahead, back = np.log(form.loss(moved, surface.columns))
        slopes.append(np.nan_to_num(ahead - back))
    return np.array(slopes).T


def _owners(surface: Surface, point: np.ndarray, name: str) -> set[str]:
    """The scales at 0 that take an exponent's effect away."""
    found = set()
    for place in np.flatnonzero(point[: len(surface.scales)] == 0):
        moved = point.copy()
        moved[place] = 1.0
        if np.abs(surface.slopes(moved[None])[0][surface.names.index(name)]).max() > FLAT:
            found.add(surface.names[place])
    return found - {name}


Names = tuple[str, ...]


def _exchangeable(surface: Surface, point: np.ndarray, scatter: float) -> list[tuple[Names, Names]]:
    """Pairs of terms that can take each other's place: their scales and the exponents that would have to move."""
    shapes, names, found = _Shapes(surface, point), surface.form.scales, []
    for pair in itertools.combinations(surface.scales, 2):
        one, other = sorted(pair, key=lambda scale: len(shapes.exponents_of(scale)))  # the cheaper question first
        back = shapes.match(other, one, scatter)
        forth = None if back is None else shapes.match(one, other, scatter)
        if back is not None and forth is not None:
            found.append(((names[one], *back), (names[other], *forth)))
    return found


class _Shapes:
    """The terms of a fitted law without their sizes, as functions of the exponents."""

    def __init__(self, surface: Surface, point: np.ndarray) -> None:
        self.surface = surface
        count = len(surface.scales)
        self.exponents = point[count:]
        law = surface.unpack(point[None])[0]
        self.loss = surface.form.loss(law, surface.columns)
        at = {scale: place for place, scale in enumerate(surface.scales)}
        self.height = {scale: abs(point[at[scale]]) for scale in surface.scales}

    def unit(self, exponents: np.ndarray, scale: int) -> np.ndarray:
        """A term of unit length. Shapes: exponents [laws, free exponents] to [laws, n]"""
        with np.errstate(all="ignore"):
            term = self.surface.term(exponents, scale)
        return term / np.maximum(np.linalg.norm(term, axis=1, keepdims=True), 1e-300)

    def match(self, wanted: int, scale: int, scatter: float) -> Sequence[str] | None:
        """The exponents by which the term of `scale` becomes the wanted one on these rows; None where it cannot.

        Exponents that both terms have stay.
        """
        goal = self.unit(self.exponents[None], wanted)[0]
        shared = self.exponents_of(wanted)
        own = [at for at in self.exponents_of(scale) if at not in shared]
        here = self.exponents.copy()
        miss = self._miss(here[None], scale, goal)[0]
        damping = 1e-3
        for _ in range(MATCHING_STEPS):
            if not own or miss @ miss < EXACTLY**2:
                break
            steps = np.tile(here, (len(own), 1))
            size = np.where(here[own] < 0.5, 1e-6, -1e-6)
            steps[np.arange(len(own)), own] += size
            slopes = ((self._miss(steps, scale, goal) - miss) / size[:, None]).T
            normal = slopes.T @ slopes
            normal += damping * np.diag(np.diag(normal)) + 1e-12 * np.eye(len(own))
            moved = here.copy()
            moved[own] = np.clip(moved[own] - np.linalg.solve(normal, slopes.T @ miss), 0.0, 1.0)
            after = self._miss(moved[None], scale, goal)[0]
            if after @ after < miss @ miss:
                here, miss, damping = moved, after, damping / 10
            else:
                damping *= 20
        # In log loss, over all rows: the wanted term times what is missed of it.
        size = self.height[wanted] * np.abs(goal).sum() ** -1 * len(goal)
        difference = np.linalg.norm(size * miss / self.loss) if not self.surface.form.log10 else np.linalg.norm(miss)
        if not (np.linalg.norm(miss) < EXACTLY or difference < FAINT * scatter):
            return None
        return [self.surface.form.exponents[self.surface.exponents[at]] for at in own]

    def exponents_of(self, scale: int) -> list[int]:
        """The free exponents that a term depends on."""
        count = len(self.exponents)
        moved = self.exponents + np.concatenate([np.zeros((1, count)), np.eye(count) * 0.05])
        terms = self.surface.term(np.where(moved > 1, moved - 0.1, moved), scale)
        return np.flatnonzero(np.abs(terms[1:] - terms[0]).max(axis=1) > 1e-12 * np.abs(terms[0]).max()).tolist()

    def _miss(self, exponents: np.ndarray, scale: int, goal: np.ndarray) -> np.ndarray:
        unit = self.unit(exponents, scale)
        return goal - (unit @ goal)[:, None] * unit
