"""Learning rates: scanned at the corners of the grid, interpolated by a model, recorded for every cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from sparsedial.law.bracket import open_side
from sparsedial.records.grid import LearningRates, RateModel, Scan, round_rate
from sparsedial.records.quantities import Family, family_of
from sparsedial.records.recipe import OptimizerName
from sparsedial.shape.counts import active_parameters
from sparsedial.shape.shape import Shape

FIRST_RATE, FIRST_SIZE, FIRST_EXPONENT = (
    1.0e-2,
    4e4,
    -0.25,
)  # where scans start; from the built-in text
SPACING = 2.0  # between neighbouring rates of a scan
MOST_POINTS = 7
RatesBy = Mapping[OptimizerName, LearningRates]  # the scans and their model; the grid's optimizer comes first
# Weak priors of the model: each exponent and its standard deviation.
PRIORS = {
    "active_parameters": (-0.3, 0.3),
    "experts_per_choice": (0.0, 0.15),
    "tokens": (-0.1, 0.15),
}
SCAN_ERROR = 0.25  # standard deviation of one scan's optimum, in log2


def start_rates(shape: Shape) -> list[float]:
    """The first rates of a scan, a factor of two apart."""
    centre = FIRST_RATE * (active_parameters(shape) / FIRST_SIZE) ** FIRST_EXPONENT
    return [round_rate(centre * SPACING**offset) for offset in (-1, 0, 1)]


def next_rate(points: Mapping[float, float | None]) -> float | None:
    """The next rate on a scan's open side; None where the optimum is inside or the scan is long enough.

    `points` maps rates to losses. The loss of a diverged run is None, and that run closes its side.
    """
    if len(points) >= MOST_POINTS:
        return None
    if all(loss is None for loss in points.values()):
        return round_rate(min(points) / SPACING**2)
    side = open_side(_bounded(points))
    if side is None:
        return None
    return round_rate(min(points) / SPACING if side == "smaller" else max(points) * SPACING)


def scan_of(shape: Shape, tokens: int, points: Mapping[float, float | None]) -> Scan:
    """The scan of one shape: its losses by rate, and the optimum between them."""
    return Scan(
        d_model=shape.d_model,
        experts=shape.experts,
        active_parameters=active_parameters(shape),
        experts_per_choice=shape.experts_per_choice,
        tokens=tokens,
        points=tuple(sorted(points.items())),
        optimum=_optimum(points),
        interior=any(loss is not None for loss in points.values()) and open_side(_bounded(points)) is None,
    )


def _bounded(points: Mapping[float, float | None]) -> dict[float, float]:
    """Losses by rate; infinite where a run diverged."""
    return {rate: math.inf if loss is None else loss for rate, loss in points.items()}


def _optimum(points: Mapping[float, float | None]) -> float | None:
    """The rate at the bottom of the parabola through the best point and its neighbours, in log rate."""
    finite = sorted((math.log(rate), loss) for rate, loss in points.items() if loss is not None)
    if not finite:
        return None
    best = min(range(len(finite)), key=lambda index: finite[index][1])
    if not 0 < best < len(finite) - 1:
        return math.exp(finite[best][0])
    (x0, y0), (x1, y1), (x2, y2) = finite[best - 1 : best + 2]
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    curvature = (right - left) / (x2 - x0)
    bottom = (x0 + x1) / 2 - left / (2 * curvature) if curvature > 0 else x1
    return math.exp(min(max(bottom, x0), x2))


def fit_rates(scans: Sequence[Scan]) -> RateModel:
    """A power law through the scans' optima, with weak priors on its exponents.

    Scans at one budget change size and tokens together. A scan with other tokens separates them, and the priors keep
    exponents that are still undetermined near published slopes.
    """
    known = [(scan, optimum) for scan in scans if (optimum := scan.optimum) is not None]
    used = [scan for scan, _ in known]
    names = list(PRIORS)
    points = np.log([[getattr(scan, name) for name in names] for scan in used])
    centre = points.mean(axis=0)
    optima = np.log([optimum for _, optimum in known])
    precision = 1 / (SCAN_ERROR * math.log(2))
    design = np.column_stack([np.ones(len(used)), points - centre]) * precision
    prior_rows = np.column_stack([np.zeros(len(names)), np.diag([1 / PRIORS[name][1] for name in names])])
    prior_values = [PRIORS[name][0] / PRIORS[name][1] for name in names]
    solution, *_ = np.linalg.lstsq(
        np.vstack([design, prior_rows]), np.concatenate([optima * precision, prior_values]), rcond=None
    )
    return RateModel(
        rate=math.exp(float(solution[0])),
        reference=dict(zip(names, np.exp(centre).tolist(), strict=True)),
        exponents=dict(zip(names, solution[1:].tolist(), strict=True)),
    )


def scanned_gain(rates: RatesBy, family: Family, optimizer: OptimizerName) -> float:
    """How far an optimizer's best losses are below those of the grid's, in nats, over the scans of a family.

    All scans are of the lowest budgets, and of equal FLOPs.
    """
    grid, own = (_lowest(rates[name], family) for name in (next(iter(rates)), optimizer))
    gains = [grid[corner] - loss for corner, loss in own.items() if corner in grid]
    return float(np.mean(gains)) if gains else 0.0


def _lowest(rates: LearningRates, family: Family) -> dict[tuple[int, int, int], float]:
    """The lowest loss of each scan that has one, by its model and its tokens."""
    return {
        (scan.d_model, scan.experts, scan.tokens): min(loss for _, loss in scan.points if loss is not None)
        for scan in rates.scans
        if family_of(scan.experts) == family and scan.optimum is not None
    }
