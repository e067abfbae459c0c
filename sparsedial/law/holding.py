"""Runs that are held out of a fit, and how a form fitted to the others predicts them."""

from __future__ import annotations

from typing import Unpack

import numpy as np

from sparsedial.errors import UserError
from sparsedial.law.check import held_out_check
from sparsedial.law.choose import select
from sparsedial.law.expressions import matching
from sparsedial.law.fit import Estimator, Rows, fit, refusal
from sparsedial.records.law import HeldOut

SPARSEST = "sparsest"


def held_rows(rows: Rows, rule: str | None, names: Rows | None = None) -> np.ndarray | None:
    """The rows to hold out: those that a rule picks, else those of the largest budget; None without two budgets.

    The rule speaks of `names`, the columns of the same rows by all their names; by default of `rows`.

    Raises: UserError where the rule picks none or all.
    """
    if rule is not None:
        top = _sparsest(rows) if rule == SPARSEST else matching(names or rows, rule)
        if not top.any() or top.all():
            raise UserError(
                f"'{rule}' picks {int(top.sum())} of {len(top)} rows",
                hint="some must be picked, and some left to fit",
                field="hold_out",
            )
        return top
    if "flops" in rows and len(np.unique(rows["flops"])) > 1:
        return rows["flops"] == rows["flops"].max()
    return None


def _sparsest(rows: Rows) -> np.ndarray:
    for name in ("sparsity", "experts"):
        if name in rows:
            return rows[name] == rows[name].max()
    raise UserError("sparsest needs a column 'sparsity' or 'experts'", field="hold_out")


def checked(
    rows: Rows, held: np.ndarray | None, form: str, *, rule: str | None, seed: int, **how: Unpack[Estimator]
) -> tuple[HeldOut | None, str | None]:
    """How the form, fitted as `how` says to the other rows, predicts those held out; None, with the reason, else.

    Raises: UserError where a given rule leaves too few rows.
    """
    if held is None:
        return None, "the table has no column 'flops' with two budgets, of which the largest could be held out"
    below = select(rows, ~held)
    reason = refusal(below, form, pinned=how.get("pin") or ())
    if reason is not None and rule is not None:
        raise UserError(f"without the rows of '{rule}', {reason}", hint="hold out fewer rows", field="hold_out")
    if reason is not None:
        return None, f"without the largest budget, {reason}"
    return held_out_check(below, select(rows, held), fit(below, form, bootstrap=0, seed=seed, **how)), None
