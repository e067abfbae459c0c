"""What a fitted law leaves unexplained: single runs far from it, and residuals that follow a variable."""

from __future__ import annotations

import numpy as np

from sparsedial.law.search import Best, robust_spread
from sparsedial.law.surface import Surface
from sparsedial.records.law import Misfit, Outlier

FAR = 5.0  # robust spreads
UNSURE = 4.0  # the spread of few runs is itself unsure; measured: 1 to 2 % of tables of 12 to 240 runs then name a run
LEAST_SPREAD = 1e-4  # in log loss: nobody calls a smaller distance than a few of these an outlier
DEGREE = 4  # of the smooth curve in a variable
FLIPS = 1999
RARE = 0.01  # chance of calling a form that is right a misfit, over all variables
LEAST_SHARE = 0.1  # of the variance: less is no misfit worth a word


def outliers(
    target: np.ndarray, residuals: np.ndarray, weight: np.ndarray, free: int, places: np.ndarray
) -> tuple[Outlier, ...]:
    """The runs that lie far from the law, farthest first, by their `places` in the table.

    Shapes: target (log losses), residuals (predicted less measured), weight and places [n]
    """
    rows = len(target)
    narrowed = np.sqrt(rows / max(1, rows - free))  # a fit bends towards its rows
    spread = max(LEAST_SPREAD, narrowed * robust_spread(residuals, weight))
    least = FAR * (1 + UNSURE / max(1, rows - free)) * spread
    far = np.flatnonzero(np.abs(residuals) > least)
    return tuple(
        Outlier(
            row=int(places[at]),
            loss=float(np.exp(target[at])),
            predicted_loss=float(np.exp(target[at] + residuals[at])),
            spreads=float(-residuals[at] / spread),
        )
        for at in far[np.argsort(-np.abs(residuals[far]))]
    )


def misfit(
    surface: Surface,
    best: Best,
    residuals: np.ndarray,
    weight: np.ndarray,
    groups: np.ndarray | None,
    seed: int,
) -> Misfit | None:
    """The variable that the residuals follow, if they follow one more than signs by chance would.

    A smooth curve in the log of each variable is put on the residuals, beside what the form's own coefficients could
    still take up. Its share of their variance is compared with those after random changes of sign, which keep each
    run's scatter, and groups together. Residuals count up to Huber's threshold.

    Shapes: residuals and weight [n]
    """
    root = np.sqrt(weight)
    slopes = np.nan_to_num(surface.slopes(best.point[None])[0]).T * root[:, None]
    taken = _basis(slopes)
    groups = np.arange(len(residuals)) if groups is None else groups
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (FLIPS, int(groups.max()) + 1))[:, groups]
    bounded = root * np.clip(residuals, -best.threshold, best.threshold)
    many = np.concatenate([bounded[None], signs * bounded])
    many = many - (many @ taken) @ taken.T
    squares = np.maximum((many**2).sum(axis=1), 1e-300)
    found = []
    for name, values in _variables(surface).items():
        whole = _curve(values) * root[:, None]
        curve = _basis(whole - taken @ (taken.T @ whole), np.linalg.norm(whole, axis=0))
        if not curve.shape[1] or len(residuals) <= taken.shape[1] + curve.shape[1]:
            continue
        shares = ((many @ curve) ** 2).sum(axis=1) / squares
        chance = float((shares[1:] >= shares[0]).mean())
        found.append(Misfit(variable=name, share=float(shares[0]), p_value=max(chance, 1 / (FLIPS + 1))))
    if not found:
        return None
    worst = min(found, key=lambda one: (one.p_value, -one.share))
    return worst if worst.p_value * len(found) <= RARE and worst.share >= LEAST_SHARE else None


def _variables(surface: Surface) -> dict[str, np.ndarray]:
    """Values in which a smooth curve is looked for, each at least three times different."""
    columns = dict(surface.columns)
    logs = {
        name: -np.log(1 - values) if name == "sparsity" else values if name == "shared_share" else np.log(values)
        for name, values in columns.items()
    }
    size = logs.get("active_parameters", logs.get("total_parameters"))
    if size is not None and "tokens" in logs:
        logs["tokens_per_parameter"] = logs["tokens"] - size
    return {name: values for name, values in logs.items() if len(np.unique(values.round(9))) > 2}


def _curve(values: np.ndarray) -> np.ndarray:
    """Polynomials. Shapes: [n] to [n, degree + 1]"""
    along = (values - values.mean()) / max(values.std(), 1e-300)
    degree = min(DEGREE, len(np.unique(values.round(9))) - 1)
    return np.vander(along, degree + 1)


def _basis(columns: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    """Orthogonal unit columns with the same span, without directions that only rounding gives.

    `lengths` are those of the columns before something was taken from them [their own].
    """
    units = np.maximum(np.linalg.norm(columns, axis=0) if lengths is None else lengths, 1e-300)
    left, sizes, _ = np.linalg.svd(columns / units, full_matrices=False)
    return left[:, sizes > 1e-7]
