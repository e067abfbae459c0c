"""Models that differ in size and tokens alone: along which a law splits a budget between the two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsedial.law.fit import Rows
from sparsedial.law.form import Form
from sparsedial.law.law import Law
from sparsedial.records.quantities import Span

SIZES = ("active_parameters", "total_parameters")  # the first that a form has is its size
LEVELS = ("sparsity", "experts")
MOST_LEVELS = 12
PER_PARAMETER = 6.0  # FLOPs to learn a token with one active parameter, by the usual rule


@dataclass(frozen=True, kw_only=True)
class Split:
    """How budgets become sizes and tokens at one value of a law's other variables: FLOPs = factor × size × tokens."""

    size: str
    other_size: tuple[str, float] | None  # a second size of the form, and its ratio to the first
    held: dict[str, float]
    factor: float
    factors: Span
    budgets: Span
    picked: np.ndarray  # the table's rows at these values

    def columns(self, size: np.ndarray, budget: float) -> dict[str, np.ndarray]:
        """The law's variables of models of these sizes, each trained on the whole budget."""
        columns = {self.size: size, "tokens": budget / (self.factor * size)}
        if self.other_size is not None:
            name, ratio = self.other_size
            columns[name] = ratio * size
        return columns | {name: np.full_like(size, value) for name, value in self.held.items()}


def splits(law: Law, rows: Rows) -> tuple[Split, ...] | str:
    """A split for each sparsity of the table, or for the whole table; or the reason why the law gives none."""
    form = law.as_form
    if "tokens" not in form.variables:
        return f"{form.name} has no term for tokens, so it knows no best size for a budget"
    size = next(name for name in SIZES if name in form.variables)
    whole = rows.get("flops")
    per_token = _per_token(rows, form, size) if whole is None else whole / rows["tokens"]
    if per_token is None:
        return "the table has neither flops nor active_parameters, so FLOPs are not known"
    budgets = per_token * rows["tokens"] if whole is None else whole
    level = next((name for name in LEVELS if name in form.variables), None)
    picks = [np.ones(len(rows["loss"]), dtype=bool)] if level is None else _levels(rows[level])
    return tuple(_split(rows, form, size, picked, per_token, budgets) for picked in picks)


def _split(rows: Rows, form: Form, size: str, picked: np.ndarray, per_token: np.ndarray, budgets: np.ndarray) -> Split:
    other = next((name for name in SIZES if name in form.variables and name != size), None)
    ratios = (per_token / rows[size])[picked]
    fixed = [name for name in form.variables if name not in (*SIZES, "tokens")]
    return Split(
        size=size,
        other_size=None if other is None else (other, float(np.median((rows[other] / rows[size])[picked]))),
        held={name: float(np.median(rows[name][picked])) for name in fixed},
        factor=float(np.median(ratios)),
        factors=(float(ratios.min()), float(ratios.max())),
        budgets=(float(budgets.min()), float(budgets.max())),
        picked=picked,
    )


def _per_token(rows: Rows, form: Form, size: str) -> np.ndarray | None:
    """FLOPs per token of a table that does not state them."""
    if "active_parameters" in rows:
        return PER_PARAMETER * rows["active_parameters"]
    dense = "sparsity" not in form.variables and "experts" not in form.variables
    return PER_PARAMETER * rows[size] if dense else None


def _levels(values: np.ndarray) -> list[np.ndarray]:
    """The rows of each level; of many levels, a dozen spread evenly."""
    levels = np.unique(values)
    if len(levels) > MOST_LEVELS:
        levels = levels[np.linspace(0, len(levels) - 1, MOST_LEVELS).round().astype(int)]
    return [values == level for level in levels]
