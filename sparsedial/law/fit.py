"""Fitting by variable projection: exponents outside, non-negative scales inside, Huber's loss on log loss around."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from sparsedial.errors import UserError, nearest
from sparsedial.law.forms import FORMS, Form
from sparsedial.law.law import Law

LEAST_BUDGETS = 2
HUBER_FLOOR = 1e-3  # in log loss
HUBER_TUNING = 1.345  # times the robust spread: 95 % efficient on normal noise
REWEIGHTINGS = 4
MOST_STARTS = 24
DECADE = 10.0
FLAT = 1e-5  # of the largest singular value of the unit-scaled Jacobian
FLAT_SHARE = 0.1

Rows = Mapping[str, np.ndarray]


def refusal(rows: Rows, form: str) -> str | None:
    """Why these rows cannot support a fit of the form, or None.

    Too few rows for its coefficients, too few budgets, or no sparsity and budget with a size of least loss inside.
    """
    wanted = len(FORMS[form].coefficients) + 3
    if len(rows["loss"]) < wanted:
        count = len(FORMS[form].coefficients)
        return f"{len(rows['loss'])} runs are too few for the {count} coefficients of {form}: {wanted} are needed"
    if "flops" in rows:
        budgets = len(np.unique(rows["flops"]))
        if budgets < LEAST_BUDGETS:
            return (
                f"{budgets} budget is too little to part the effect of tokens from that of size: take {LEAST_BUDGETS}"
            )
        if not _has_interior_minimum(rows):
            return (
                "no interior minimum: for every budget and sparsity the best size is the smallest or the largest tried"
            )
    return None


def _has_interior_minimum(rows: Rows) -> bool:
    size = rows["active_parameters"] if "active_parameters" in rows else rows["total_parameters"]
    sparsity = rows.get("sparsity", np.zeros_like(size))
    long_lines = 0
    for budget, level in {*zip(rows["flops"].tolist(), sparsity.tolist(), strict=True)}:
        line = (rows["flops"] == budget) & (sparsity == level)
        if line.sum() < 3:
            continue
        long_lines += 1
        best = size[line][np.argmin(rows["loss"][line])]
        if size[line].min() < best < size[line].max():
            return True
    return long_lines == 0  # a table without lines of equal budget says nothing about minima


def fit(
    rows: Rows,
    form: str,
    *,
    pin: Mapping[str, float] | None = None,
    bootstrap: int = 200,
    seed: int = 0,
    confidence: float = 0.9,
) -> Law:
    """Fit a form to runs, with intervals from refits to resampled runs.

    `rows` maps column names to equally long arrays: `loss` and the form's variables; `flops` marks budgets.

    Raises: UserError for an unknown form, or rows that cannot support it (`refusal` gives the reason).
    """
    if form not in FORMS:
        raise UserError(f"fit: no form named '{form}'", hint=nearest(form, FORMS) or "`fit --list-forms` names them")
    reason = refusal(rows, form)
    if reason is not None:
        raise UserError(f"fit: {reason}")
    problem = _Problem(FORMS[form], rows, dict(pin or {}))
    best = min((problem.solve(start) for start in problem.starts()), key=problem.objective)
    best, weights = problem.reweight(best)
    values = problem.coefficients(best, weights)
    samples = problem.bootstrap(best, weights, bootstrap, seed)
    tail = (1 - confidence) / 2
    names = FORMS[form].coefficients
    spread = np.quantile(samples, [tail, 1 - tail], axis=0) if len(samples) else np.stack([values, values])
    residuals = problem.log_residuals(values)
    freedom = max(1, len(residuals) - len(names))
    return Law(
        form=form,
        coefficients=dict(zip(names, values.tolist(), strict=True)),
        intervals={name: [float(low), float(high)] for name, low, high in zip(names, *spread, strict=True)},
        confidence=confidence,
        samples=tuple(map(tuple, samples.tolist())),
        runs=len(residuals),
        rmse_log_loss=float(np.sqrt(np.sum(residuals**2) / freedom)),
        fitted_range={
            name: [float(rows[name].min()), float(rows[name].max())]
            for name in (*FORMS[form].variables, "flops")
            if name in rows
        },
        undetermined=undetermined(FORMS[form], values, problem.columns, samples, tail, set(problem.pin)),
        seed=seed,
    )


def undetermined(
    form: Form, values: np.ndarray, columns: Rows, samples: np.ndarray, tail: float, pinned: set[str]
) -> tuple[str, ...]:
    """Coefficients that the data leave open: an interval that touches 0 or a bound, or spans a decade, or a direction
    in which coefficients can move together without moving the loss.
    """
    if not len(samples):
        return ()
    low, high = np.quantile(samples, [tail, 1 - tail], axis=0)
    flat = _flat(form, values, columns, pinned)
    names = []
    for place, name in enumerate(form.coefficients):
        if name in pinned:
            continue
        if name in form.scales:
            loose = low[place] <= 0 or high[place] / low[place] > DECADE
        else:
            least, most = form.bounds[form.exponents.index(name)]
            edge = 1e-3 * (most - least)
            loose = low[place] <= least + edge or high[place] >= most - edge or low[place] * high[place] <= 0
        if loose or name in flat:
            names.append(name)
    return tuple(names)


def _flat(form: Form, values: np.ndarray, columns: Rows, pinned: set[str]) -> set[str]:
    """Coefficients with a share in a direction along which the log loss does not change at these runs."""
    free = [place for place, name in enumerate(form.coefficients) if name not in pinned and values[place] != 0]
    slopes = []
    for place in free:
        step = 1e-4 * abs(values[place])
        moved = [values + sign * step * np.eye(len(values))[place] for sign in (1, -1)]
        up, down = (np.log(form.loss(value, columns)) for value in moved)
        slopes.append((up - down) / 2e-4)  # for a relative change of the coefficient
    jacobian = np.array(slopes).T
    jacobian = jacobian / np.maximum(np.linalg.norm(jacobian, axis=0), 1e-300)
    _, sizes, directions = np.linalg.svd(jacobian, full_matrices=False)
    null = directions[sizes < FLAT * sizes[0]]
    shares = (null**2).sum(axis=0)
    return {form.coefficients[place] for place, share in zip(free, shares, strict=True) if share > FLAT_SHARE}


class _Problem:
    """One form on one table, its variables divided by their geometric means so that scales are of one size."""

    def __init__(self, form: Form, rows: Rows, pin: dict[str, float]) -> None:
        for name in pin:
            if name not in form.coefficients:
                raise UserError(
                    f"fit: {form.name} has no coefficient named '{name}'", hint=nearest(name, form.coefficients)
                )
        self.form, self.pin = form, pin
        self.loss = np.asarray(rows["loss"], dtype=float)
        self.columns = {name: np.asarray(rows[name], dtype=float) for name in form.variables}
        self.free = [place for place, name in enumerate(form.exponents) if name not in pin]
        self.lower, self.upper = np.array(form.bounds).T
        self.fixed_scales = {form.scales.index(name): value for name, value in pin.items() if name in form.scales}

    def starts(self) -> list[np.ndarray]:
        grid = list(itertools.product(*(self.form.starts[place] for place in self.free)))
        stride = max(1, len(grid) // MOST_STARTS)
        return [np.array(point) for point in grid[::stride]]

    def _exponents(self, free: np.ndarray) -> np.ndarray:
        full = np.array([self.pin.get(name, 0.0) for name in self.form.exponents])
        full[self.free] = free
        return full

    def _project(self, free: np.ndarray, weights: np.ndarray, picked: Any) -> tuple[np.ndarray, np.ndarray]:
        """Scales for given exponents, and the weighted relative residuals."""
        from scipy.optimize import nnls

        columns = {name: values[picked] for name, values in self.columns.items()}
        loss = self.loss[picked]
        terms = self.form.terms(self._exponents(free), columns) * (weights / loss)[:, None]
        target = weights.copy()
        open_ = [place for place in range(terms.shape[1]) if place not in self.fixed_scales]
        for place, value in self.fixed_scales.items():
            target -= terms[:, place] * value
        size = np.linalg.norm(terms[:, open_], axis=0)
        size[size == 0] = 1.0
        solution, _ = nnls(terms[:, open_] / size, target)
        scales = np.zeros(terms.shape[1])
        scales[open_] = solution / size
        for place, value in self.fixed_scales.items():
            scales[place] = value
        return scales, terms @ scales - weights

    def solve(self, start: np.ndarray, weights: np.ndarray | None = None, picked: Any = slice(None)) -> np.ndarray:
        from scipy.optimize import least_squares

        root = np.ones(len(self.loss)) if weights is None else np.sqrt(weights)
        if not len(start):
            return start
        low, high = self.lower[self.free], self.upper[self.free]
        inside = np.clip(start, low + 1e-6, high - 1e-6)
        answer = least_squares(
            lambda free: self._project(free, root[picked], picked)[1],
            inside,
            bounds=(low, high),
            max_nfev=60,
            xtol=1e-7,
            ftol=1e-9,
        )
        return answer.x

    def objective(self, free: np.ndarray, weights: np.ndarray | None = None) -> float:
        root = np.ones(len(self.loss)) if weights is None else np.sqrt(weights)
        return float(np.sum(self._project(free, root, slice(None))[1] ** 2))

    def log_residuals(self, values: np.ndarray) -> np.ndarray:
        return np.log(self.form.loss(values, self.columns)) - np.log(self.loss)

    def coefficients(self, free: np.ndarray, weights: np.ndarray, picked: Any = slice(None)) -> np.ndarray:
        scales, _ = self._project(free, np.sqrt(weights[picked]), picked)
        return np.concatenate([scales, self._exponents(free)])

    def reweight(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Huber's estimate by iteratively reweighted least squares."""
        weights = np.ones(len(self.loss))
        for _ in range(REWEIGHTINGS):
            residuals = np.abs(self.log_residuals(self.coefficients(free, weights)))
            threshold = max(HUBER_FLOOR, HUBER_TUNING * 1.4826 * float(np.median(residuals)))
            weights = np.minimum(1.0, threshold / np.maximum(residuals, 1e-12))
            free = self.solve(free, weights)
        return free, weights

    def bootstrap(self, free: np.ndarray, weights: np.ndarray, count: int, seed: int) -> np.ndarray:
        """Coefficients of refits to resampled runs, each started from the full fit."""
        generator = np.random.default_rng(seed)
        rows = len(self.loss)
        samples = []
        for _ in range(count):
            picked = generator.integers(0, rows, rows)
            samples.append(self.coefficients(self.solve(free, weights, picked), weights, picked))
        return np.array(samples).reshape(count, len(self.form.coefficients))
