"""Whether a law was fitted on such models: its range compared with a shape, its tokens and their FLOPs."""

from __future__ import annotations

from collections.abc import Mapping

from sparsedial.law.law import Law
from sparsedial.shape.counts import training_flops_per_token
from sparsedial.shape.shape import Shape

NAMES = {"flops": "FLOPs", "total_parameters": "total parameters", "active_parameters": "active parameters"}
SIZES = (*NAMES, "tokens")  # a range of any of these says how large the law's runs were


def beyond(law: Law, shape: Shape, tokens: float, context: int) -> list[str]:
    """In words, which quantities of a training lie outside the range that the law was fitted on; empty inside."""
    values: Mapping[str, float] = {
        **law.as_form.count(shape),
        "tokens": tokens,
        "flops": training_flops_per_token(shape, context) * tokens,
    }
    lines = [
        f"{NAMES.get(name, name)} are {_times(factor)} times outside the range that the law was fitted on"
        for name, factor in law.outside({key: float(value) for key, value in values.items()}).items()
    ]
    fitted = law.fitted_range.get("sparsity")
    if fitted and shape.sparsity > fitted[1] + 1e-9:
        lines.append(
            f"sparsity {shape.sparsity:.4g} lies beyond {fitted[1]:.4g}, the sparsest that the law was fitted on"
        )
    return lines


def _times(factor: float) -> str:
    return f"{factor:,.3g}" if factor < 1000 else f"{factor:,.0f}"


def states_sizes(law: Law) -> bool:
    """Whether a law's range says how large its runs were, so that being inside it means something."""
    return any(name in law.fitted_range for name in SIZES)


def inside_flops(law: Law, flops: float) -> float:
    """The budget closest to `flops` that lies within the range that the law was fitted on, where it states one."""
    low, high = law.fitted_range.get("flops", [flops, flops])
    return min(max(flops, low), high)
