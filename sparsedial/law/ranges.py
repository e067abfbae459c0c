"""The range of a law's runs: the least and the most of everything that a model may later be asked for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sparsedial.law.form import Form
from sparsedial.records.quantities import Span

KEPT = ("total_parameters", "active_parameters", "tokens", "flops", "granularity", "d_model")
SAME = 1e-6  # relative: sizes that differ by less are equal


def ranges(rows: Mapping[str, np.ndarray], form: Form) -> dict[str, Span]:
    """The spans of a form's variables, and of all else that the table tells of sizes, tokens, budgets and sparsity.

    `experts` are experts/top_k, as laws count them.
    """
    found = {name: rows[name] for name in (*form.variables, *KEPT) if name in rows}
    ratios = _ratios(rows, form)
    if ratios is not None:
        found |= {"sparsity": 1 - 1 / ratios, "experts": ratios}
    if "tokens" in rows and form.size in rows:
        found["tokens_per_parameter"] = rows["tokens"] / rows[form.size]
    return {name: (float(values.min()), float(values.max())) for name, values in found.items() if _usable(values)}


def _usable(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all() and (values >= 0).all())


def _ratios(rows: Mapping[str, np.ndarray], form: Form) -> np.ndarray | None:
    """experts/top_k of every run, where the table tells."""
    sparsity, experts = rows.get("sparsity"), rows.get("experts")
    if "experts" in form.variables and experts is not None:
        return experts
    if sparsity is not None and ((sparsity >= 0) & (sparsity < 1)).all():
        return 1 / (1 - sparsity)
    if experts is not None and "top_k" in rows:
        return np.where(experts > 0, experts / np.maximum(rows["top_k"], 1), 1.0)
    if {"total_parameters", "active_parameters"} <= set(rows):
        total, active = rows["total_parameters"], rows["active_parameters"]
        if (np.abs(total - active) <= SAME * total).all():
            return np.ones_like(total)
    return None
