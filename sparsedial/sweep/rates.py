"""Learning rates: scanned at the corners of the grid, modelled between them, recorded for every cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsedial.shape.counts import active_parameters
from sparsedial.shape.shape import Shape

FIRST_RATE, FIRST_SIZE, FIRST_EXPONENT = 1.0e-2, 4e4, -0.25  # a start for the scans only: measured on the built-in text
SPACING = 2.0  # between neighbouring rates of a scan
SCAN_POINTS = 3  # before an open side is followed
MOST_POINTS = 7
# The model's weak priors: exponent and its standard deviation.
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


def round_rate(rate: float) -> float:
    """Three significant digits, so that a rate has one spelling in every file."""
    return float(f"{rate:.3g}")


def next_rate(points: Mapping[float, float | None]) -> float | None:
    """The rate that follows a scan's open side, or None where the optimum is inside or the scan is long enough.

    `points` maps rates to losses; a diverged run is None and closes its side.
    """
    finite = {rate: loss for rate, loss in points.items() if loss is not None}
    if len(points) >= MOST_POINTS:
        return None
    if not finite:
        return round_rate(min(points) / SPACING**2)
    best = min(finite, key=lambda rate: finite[rate])
    if best == min(points):
        return round_rate(best / SPACING)
    return round_rate(best * SPACING) if best == max(points) else None


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Losses of one shape at several learning rates, and the optimum between them."""

    d_model: int
    experts: int
    active_parameters: int
    experts_per_choice: float  # experts/top_k; 1 for dense
    tokens: int
    points: tuple[tuple[float, float | None], ...]

    @property
    def interior(self) -> bool:
        """Whether the best rate has worse ones on both sides."""
        return bool(self.points) and self._best_is_inside()

    def _best_is_inside(self) -> bool:
        finite = [(rate, loss) for rate, loss in self.points if loss is not None]
        if not finite:
            return False
        best = min(finite, key=lambda point: point[1])[0]
        rates = [rate for rate, _ in self.points]
        return min(rates) < best < max(rates)

    @property
    def optimum(self) -> float | None:
        """The rate at the bottom of the parabola through the best point and its neighbours, in log rate."""
        finite = sorted((math.log(rate), loss) for rate, loss in self.points if loss is not None)
        if not finite:
            return None
        place = min(range(len(finite)), key=lambda index: finite[index][1])
        if not 0 < place < len(finite) - 1:
            return math.exp(finite[place][0])
        (x0, y0), (x1, y1), (x2, y2) = finite[place - 1 : place + 2]
        left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
        curvature = (right - left) / (x2 - x0)
        bottom = (x0 + x1) / 2 - left / (2 * curvature) if curvature > 0 else x1
        return math.exp(min(max(bottom, x0), x2))

    def record(self) -> dict[str, Any]:
        """The scan as it stands in `study.json`."""
        return {
            "d_model": self.d_model,
            "experts": self.experts,
            "active_parameters": self.active_parameters,
            "experts_per_choice": self.experts_per_choice,
            "tokens": self.tokens,
            "points": [list(point) for point in self.points],
            "optimum": self.optimum,
            "interior": self.interior,
        }


@dataclass(frozen=True, kw_only=True)
class RateModel:
    """Best learning rate as a product of powers of active size, experts/top_k and tokens, at one batch."""

    log_rate: float  # at the reference point
    reference: dict[str, float]
    exponents: dict[str, float]

    def rate(self, shape: Shape, tokens: int) -> float:
        """The learning rate of a cell."""
        log_rate = self.log_rate + sum(
            self.exponents[name] * (math.log(value) - math.log(self.reference[name]))
            for name, value in variables(shape, tokens).items()
        )
        return round_rate(math.exp(log_rate))

    def record(self) -> dict[str, Any]:
        """The model as it stands in `study.json`."""
        return {"rate": math.exp(self.log_rate), "reference": self.reference, "exponents": self.exponents}

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> RateModel:
        """The inverse of `record`."""
        return RateModel(
            log_rate=math.log(record["rate"]),
            reference=dict(record["reference"]),
            exponents=dict(record["exponents"]),
        )


def variables(shape: Shape, tokens: int) -> dict[str, float]:
    """What the best learning rate is taken to depend on."""
    return {
        "active_parameters": float(active_parameters(shape)),
        "experts_per_choice": shape.experts_per_choice,
        "tokens": float(tokens),
    }


def fit_rates(scans: Sequence[Scan]) -> RateModel:
    """A power law through the scans' optima, with weak priors on its exponents.

    Scans at one budget move size and tokens together: a scan with other tokens parts them, and the priors keep what is
    still open near published slopes instead of anywhere.
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
        log_rate=float(solution[0]),
        reference=dict(zip(names, np.exp(centre).tolist(), strict=True)),
        exponents=dict(zip(names, solution[1:].tolist(), strict=True)),
    )
