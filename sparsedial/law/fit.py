"""Fitting by Huber's estimate on log loss, with intervals from refits to resampled residuals."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypedDict, Unpack

import numpy as np

from sparsedial.errors import UserError, nearest
from sparsedial.law.bracket import end_of
from sparsedial.law.confounded import open_coefficients, undetermined
from sparsedial.law.forms import FORMS
from sparsedial.law.law import Law
from sparsedial.law.ranges import ranges
from sparsedial.law.resample import resample
from sparsedial.law.search import Best, search
from sparsedial.law.structure import misfit, outliers
from sparsedial.law.surface import Surface
from sparsedial.law.table import GROUP, ROW, WEIGHT
from sparsedial.records.law import Prior
from sparsedial.units import count_words

LEAST_BUDGETS = 2
LEAST_INDEPENDENT = 2
LEAST_SIZES = 3  # of a line of equal budget

Rows = Mapping[str, np.ndarray]


def refusal(rows: Rows, form: str, intervals: bool = False, pinned: Collection[str] = ()) -> str | None:
    """Why these rows cannot support a fit of the form, or None; `pinned` coefficients need no rows.

    Reasons are too few rows for its coefficients, too few budgets, no budget and sparsity whose best size lies inside
    the tried range, and, where `intervals` are wanted, no two independent rows.
    """
    rows = _counted(rows)
    count = len(set(FORMS[form].coefficients) - set(pinned))
    wanted = count + 3
    if len(rows["loss"]) < wanted:
        coefficients = count_words(count, "free coefficient" if pinned else "coefficient")
        runs, verb = count_words(len(rows["loss"]), "run"), "is" if len(rows["loss"]) == 1 else "are"
        return f"{runs} {verb} too few for the {coefficients} of {form}: {wanted} are needed"
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


class Estimator(TypedDict, total=False):
    """How a form is fitted; whoever fits it again to other rows passes these keywords on."""

    pin: Mapping[str, float]  # coefficients that stay where they are put
    priors: Mapping[str, Prior]  # what is expected of exponents, beside what the runs say; a form may lack some
    huber: float | None  # log-loss residual above which a run counts less; null: it follows the runs' own spread


def fit(
    rows: Rows,
    form: str,
    *,
    bootstrap: int = 200,
    seed: int = 0,
    confidence: float = 0.9,
    **how: Unpack[Estimator],
) -> Law:
    """Fit a form to runs, with intervals from refits to resampled residuals.

    `rows` maps column names to equally long arrays: `loss` and the form's variables; `flops` marks budgets, `group`
    runs that are not independent, such as branches of one trunk, `weight` how often a run counts, and `row` its place
    in the table, from 1, by which outliers are named.

    Raises: UserError for an unknown form, or rows that cannot support it (`refusal` gives the reason).
    """
    if form not in FORMS:
        raise UserError(f"no form named '{form}'", hint=nearest(form, FORMS) or "<list_forms> lists them")
    rows = _counted(rows)
    pin = dict(how.get("pin") or {})
    reason = refusal(rows, form, intervals=bootstrap > 0, pinned=pin)
    if reason is not None:
        raise UserError(reason)
    surface = _surface(rows, form, pin)
    target = np.log(np.asarray(rows["loss"], dtype=float))
    weight = rows[WEIGHT] / rows[WEIGHT].mean()
    best = search(surface, target, weight, how.get("huber"))
    residuals, rmse = _residuals(surface, best, target, weight)
    priors = {name: prior for name, prior in (how.get("priors") or {}).items() if name in surface.names}
    if priors:  # weighed by how far the runs scatter around the law that they give alone
        surface = surface.drawn(priors, rmse)
        best = search(surface, target, weight, how.get("huber"))
        residuals, rmse = _residuals(surface, best, target, weight)
    values = surface.unpack(best.point[None])[0]
    groups = np.unique(rows[GROUP], return_inverse=True)[1] if GROUP in rows else None
    samples = surface.unpack(resample(surface, best, target, weight, count=bootstrap, seed=seed, groups=groups))
    tail = (1 - confidence) / 2
    names = FORMS[form].coefficients
    spread = np.quantile(samples, [tail, 1 - tail], axis=0) if len(samples) else np.stack([values, values])
    open_ = open_coefficients(surface, best.point, rmse) if bootstrap else {}
    for at in map(names.index, open_):  # what the fit found is one of the values that explain the runs equally well
        spread[:, at] = min(spread[0, at], values[at]), max(spread[1, at], values[at])
    places = np.asarray(rows.get(ROW, np.arange(1, len(target) + 1)), dtype=int)
    return Law(
        form=form,
        coefficients=dict(zip(names, values.tolist(), strict=True)),
        intervals={name: (float(low), float(high)) for name, low, high in zip(names, *spread, strict=True)},
        confidence=confidence,
        samples=tuple(map(tuple, samples.tolist())),
        runs=len(residuals),
        rmse_log_loss=rmse,
        fitted_range=ranges(rows, FORMS[form]),
        undetermined=undetermined(FORMS[form], samples, tail, open_, pin),
        open_coefficients=open_,
        outliers=outliers(target, residuals, weight, len(surface.names), places),
        misfit=misfit(surface, best, residuals, weight, groups, seed) if bootstrap else None,
        priors=priors,
        seed=seed,
    )


def _residuals(surface: Surface, best: Best, target: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Predicted less measured log losses, and the runs' scatter around the law; what was fitted is counted out."""
    residuals = surface.log_loss(best.point[None])[0] - target
    freedom = max(1, len(residuals) - len(surface.names))
    return residuals, float(np.sqrt(np.sum(weight * residuals**2) / freedom))


def _counted(rows: Rows) -> dict[str, np.ndarray]:
    """The rows that count at all, with their weights."""
    weight = np.asarray(rows.get(WEIGHT, np.ones(len(rows["loss"]))), dtype=float)
    return {name: np.asarray(values)[weight > 0] for name, values in {**rows, WEIGHT: weight}.items()}


def _surface(rows: Rows, form: str, pin: Mapping[str, float]) -> Surface:
    names = FORMS[form].coefficients
    for name in pin:
        if name not in names:
            raise UserError(f"{form} has no coefficient named '{name}'", hint=nearest(name, names))
    for name in set(FORMS[form].scales) - set(FORMS[form].signed):
        if pin.get(name, 0.0) < 0:
            raise UserError(f"{name}={pin[name]:g} is below 0, which this coefficient of {form} is not")
    if len(pin) == len(names):
        raise UserError(f"every coefficient of {form} is pinned, so nothing is left to fit")
    columns = {name: np.asarray(rows[name], dtype=float) for name in FORMS[form].variables}
    return Surface(FORMS[form], columns, pin)
