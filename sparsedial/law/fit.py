"""Fitting by variable projection: a search over exponents, with non-negative scales solved for at each point.

Residuals are in log loss and weighted by Huber's rule.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np

from sparsedial.errors import UserError, nearest
from sparsedial.law.bracket import end_of
from sparsedial.law.form import Form
from sparsedial.law.forms import FORMS
from sparsedial.law.law import Law
from sparsedial.law.resample import resample

LEAST_BUDGETS = 2
LEAST_INDEPENDENT = 2
LEAST_SIZES = 3  # of a line of equal budget
HUBER_FLOOR = 1e-3  # in log loss
HUBER_TUNING = 1.345  # times the robust spread: 95 % efficient on normal noise
REWEIGHTINGS = 4
MOST_REWEIGHTINGS = 200  # with a stated threshold, as the papers' objective has
SETTLED = 1e-4  # largest change of a weight
MOST_STARTS = 24
DECADE = 10.0
FLAT = 1e-5  # of the largest singular value of the unit-scaled Jacobian
FLAT_SHARE = 0.1

GROUP = "group"  # a column whose equal values mark runs that are not independent, such as branches of one trunk

Rows = Mapping[str, np.ndarray]


def refusal(rows: Rows, form: str, intervals: bool = False) -> str | None:
    """Why these rows cannot support a fit of the form, or None.

    Reasons are too few rows for its coefficients, too few budgets, no budget and sparsity whose best size lies inside
    the tried range, and, where `intervals` are wanted, no two independent rows.
    """
    wanted = len(FORMS[form].coefficients) + 3
    if len(rows["loss"]) < wanted:
        count = len(FORMS[form].coefficients)
        return f"{len(rows['loss'])} runs are too few for the {count} coefficients of {form}: {wanted} are needed"
    if "flops" in rows and "tokens" in FORMS[form].variables:
        budgets = len(np.unique(rows["flops"]))
        if budgets < LEAST_BUDGETS:
            return (
                f"{budgets} budget is too few to separate the effect of tokens from that of size:"
                f" {LEAST_BUDGETS} are needed"
            )
        if not _has_interior_minimum(rows):
            return (
                "no interior minimum: for every budget and sparsity the best size is the smallest or the largest tried"
            )
    if intervals and independent(rows) < LEAST_INDEPENDENT:
        return (
            f"all {len(rows['loss'])} runs share one trunk, so none is independent of another and no interval can be"
            " given: add runs of other trunks, or fit without intervals (bootstrap 0)"
        )
    return None


def independent(rows: Rows) -> int:
    """How many independent rows the table holds; dependent ones count as one group."""
    return len(np.unique(rows[GROUP])) if GROUP in rows else len(rows["loss"])


def _has_interior_minimum(rows: Rows) -> bool:
    size = rows["active_parameters"] if "active_parameters" in rows else rows["total_parameters"]
    sparsity = rows.get("sparsity", np.zeros_like(size))
    long_lines = 0
    for budget, level in {*zip(rows["flops"].tolist(), sparsity.tolist(), strict=True)}:
        line = (rows["flops"] == budget) & (sparsity == level)
        if len(np.unique(size[line])) < LEAST_SIZES:  # repeats of one size are no line of sizes
            continue
        long_lines += 1
        best = size[line][np.argmin(rows["loss"][line])]
        if end_of(best, size[line]) is None:
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
    huber: float | None = None,
) -> Law:
    """Fit a form to runs, with intervals from refits to resampled residuals.

    `rows` maps column names to equally long arrays: `loss` and the form's variables; `flops` marks budgets, `group`
    runs that are not independent. `huber` is the residual in log loss above which it counts less; by default it follows
    the runs' own spread.

    Raises: UserError for an unknown form, or rows that cannot support it (`refusal` gives the reason).
    """
    if form not in FORMS:
        raise UserError(f"no form named '{form}'", hint=nearest(form, FORMS) or "<list_forms> lists them")
    reason = refusal(rows, form, intervals=bootstrap > 0)
    if reason is not None:
        raise UserError(reason)
    problem = _Problem(FORMS[form], rows, dict(pin or {}))
    even = np.ones(len(problem.loss))
    best = min((problem.solve(start, even) for start in problem.starts()), key=problem.objective)
    best, weights = problem.reweight(best, huber)
    values = problem.coefficients(best, weights)
    fixed = np.array([name in problem.pin for name in FORMS[form].coefficients])
    groups = np.unique(rows[GROUP], return_inverse=True)[1] if GROUP in rows else None
    samples = resample(
        FORMS[form], values, fixed, problem.columns, problem.loss, weights, count=bootstrap, seed=seed, groups=groups
    )
    tail = (1 - confidence) / 2
    names = FORMS[form].coefficients
    spread = np.quantile(samples, [tail, 1 - tail], axis=0) if len(samples) else np.stack([values, values])
    residuals = problem.log_residuals(values)
    freedom = max(1, len(residuals) - len(names))
    return Law(
        form=form,
        coefficients=dict(zip(names, values.tolist(), strict=True)),
        intervals={name: (float(low), float(high)) for name, low, high in zip(names, *spread, strict=True)},
        confidence=confidence,
        samples=tuple(map(tuple, samples.tolist())),
        runs=len(residuals),
        rmse_log_loss=float(np.sqrt(np.sum(residuals**2) / freedom)),
        fitted_range={
            name: (float(rows[name].min()), float(rows[name].max()))
            for name in (*FORMS[form].variables, "flops")
            if name in rows
        },
        undetermined=undetermined(FORMS[form], values, problem.columns, samples, tail, set(problem.pin)),
        seed=seed,
    )


def undetermined(
    form: Form, values: np.ndarray, columns: Rows, samples: np.ndarray, tail: float, pinned: set[str]
) -> tuple[str, ...]:
    """Coefficients that the data do not determine.

    Their interval touches 0 or a bound, or spans a decade, or they can move together without changing the loss.
    """
    if not len(samples):
        return ()
    low, high = np.quantile(samples, [tail, 1 - tail], axis=0)
    flat = _flat(form, values, columns, pinned)
    names = []
    for index, name in enumerate(form.coefficients):
        if name in pinned:
            continue
        if name in form.scales:
            loose = low[index] <= 0 or high[index] > DECADE * low[index]
        else:
            least, most = form.bounds[form.exponents.index(name)]
            edge = 1e-3 * (most - least)
            loose = low[index] <= least + edge or high[index] >= most - edge or low[index] * high[index] <= 0
        if loose or name in flat:
            names.append(name)
    return tuple(names)


def _flat(form: Form, values: np.ndarray, columns: Rows, pinned: set[str]) -> set[str]:
    """Coefficients with a share in a direction along which the log loss of these runs does not change."""
    free = [index for index, name in enumerate(form.coefficients) if name not in pinned and values[index] != 0]
    slopes = []
    for index in free:
        step = 1e-4 * abs(values[index])
        moved = [values + sign * step * np.eye(len(values))[index] for sign in (1, -1)]
        up, down = (np.log(form.loss(value, columns)) for value in moved)
        slopes.append((up - down) / 2e-4)  # for a relative change of the coefficient
    jacobian = np.array(slopes).T
    jacobian = jacobian / np.maximum(np.linalg.norm(jacobian, axis=0), 1e-300)
    _, sizes, directions = np.linalg.svd(jacobian, full_matrices=False)
    null = directions[sizes < FLAT * sizes[0]]
    shares = (null**2).sum(axis=0)
    return {form.coefficients[index] for index, share in zip(free, shares, strict=True) if share > FLAT_SHARE}


class _Problem:
    """One form on one table: exponents are searched, and scales are solved for at each of them."""

    def __init__(self, form: Form, rows: Rows, pin: Mapping[str, float]) -> None:
        for name in pin:
            if name not in form.coefficients:
                raise UserError(
                    f"{form.name} has no coefficient named '{name}'", hint=nearest(name, form.coefficients)
                )
        if len(pin) == len(form.coefficients):
            raise UserError(f"every coefficient of {form.name} is pinned, so nothing is left to fit")
        self.form, self.pin = form, pin
        self.loss = np.asarray(rows["loss"], dtype=float)
        self.columns = {name: np.asarray(rows[name], dtype=float) for name in form.variables}
        self.free = [index for index, name in enumerate(form.exponents) if name not in pin]
        self.lower, self.upper = np.array(form.bounds).T[:, self.free]
        self.fixed_scales = {form.scales.index(name): value for name, value in pin.items() if name in form.scales}
        # Relative residuals approximate those of log loss; they are linear in the scales.
        self.row_factor, self.target = (
            (np.full(len(self.loss), math.log(10)), np.log(self.loss))
            if form.log10
            else (1 / self.loss, np.ones(len(self.loss)))
        )

    def starts(self) -> list[np.ndarray]:
        grid = list(itertools.product(*(self.form.starts[index] for index in self.free)))
        stride = max(1, len(grid) // MOST_STARTS)
        return [np.array(point) for point in grid[::stride]]

    def _exponents(self, free: np.ndarray) -> np.ndarray:
        full = np.array([self.pin.get(name, 0.0) for name in self.form.exponents])
        full[self.free] = free
        return full

    def _project(self, free: np.ndarray, root: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scales for given exponents, and the weighted residuals; `root` is the root of the weights."""
        terms = self.form.design(self._exponents(free), self.columns) * (root * self.row_factor)[:, None]
        target = root * self.target
        open_ = [index for index in range(terms.shape[1]) if index not in self.fixed_scales]
        for index, value in self.fixed_scales.items():
            target = target - terms[:, index] * value
        scales = np.zeros(terms.shape[1])
        scales[open_] = self._linear(terms[:, open_], target, open_)
        residuals = terms[:, open_] @ scales[open_] - target
        for index, value in self.fixed_scales.items():
            scales[index] = value
        return scales, residuals

    def _linear(self, terms: np.ndarray, target: np.ndarray, columns: list[int]) -> np.ndarray:
        """Least squares in which only signed scales may be below 0; those enter once with each sign."""
        size = np.linalg.norm(terms, axis=0)
        size[size == 0] = 1.0
        signed = [at for at, column in enumerate(columns) if self.form.scales[column] in self.form.signed]
        if len(signed) == len(columns):
            return np.linalg.lstsq(terms / size, target, rcond=None)[0] / size
        from scipy.optimize import nnls

        both = np.hstack([terms / size, -(terms / size)[:, signed]])
        solution, _ = nnls(both, target)
        answer = solution[: len(columns)].copy()
        answer[signed] -= solution[len(columns) :]
        return answer / size

    def solve(self, start: np.ndarray, weights: np.ndarray) -> np.ndarray:
        from scipy.optimize import least_squares

        if not len(start):
            return start
        root = np.sqrt(weights)
        inside = np.clip(start, self.lower + 1e-6, self.upper - 1e-6)
        answer = least_squares(
            lambda free: self._project(free, root)[1],
            inside,
            bounds=(self.lower, self.upper),
            x_scale=self.upper - self.lower,
            max_nfev=60,
            xtol=1e-7,
            ftol=1e-9,
        )
        return answer.x

    def objective(self, free: np.ndarray) -> float:
        return float(np.sum(self._project(free, np.ones(len(self.loss)))[1] ** 2))

    def log_residuals(self, values: np.ndarray) -> np.ndarray:
        return np.log(self.form.loss(values, self.columns)) - np.log(self.loss)

    def coefficients(self, free: np.ndarray, weights: np.ndarray) -> np.ndarray:
        scales, _ = self._project(free, np.sqrt(weights))
        return np.concatenate([scales, self._exponents(free)])

    def reweight(self, free: np.ndarray, huber: float | None) -> tuple[np.ndarray, np.ndarray]:
        """Huber's estimate by iteratively reweighted least squares; its threshold follows the spread unless given."""
        weights = np.ones(len(self.loss))
        for _ in range(REWEIGHTINGS if huber is None else MOST_REWEIGHTINGS):
            residuals = np.abs(self.log_residuals(self.coefficients(free, weights)))
            threshold = huber or max(HUBER_FLOOR, HUBER_TUNING * 1.4826 * float(np.median(residuals)))
            before, weights = weights, np.minimum(1.0, threshold / np.maximum(residuals, 1e-12))
            free = self.solve(free, weights)
            if np.abs(weights - before).max() < SETTLED:
                break
        return free, weights
