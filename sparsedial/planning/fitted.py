"""Whether a law was fitted on such models: the range of its runs compared with a shape, its tokens and their FLOPs."""

from __future__ import annotations

from sparsedial.law.fence import FAR, SINGULAR, WORDS, fence, measured, span_amounts
from sparsedial.law.law import Law
from sparsedial.shape.counts import training_flops_per_token
from sparsedial.shape.shape import Shape
from sparsedial.units import human_factor

SIZES = ("flops", "total_parameters", "active_parameters", "tokens")  # ranges that say how large the law's runs were
SLACK = 1.01  # a value this factor beyond a range is not reported yet


def factors_beyond(law: Law, shape: Shape, tokens: float, context: int) -> dict[str, float]:
    """By quantity, how far beyond the range of the law's runs a training lies, as a factor above 1."""
    bounds = fence(law)
    values = measured(law, shape, tokens, lambda: training_flops_per_token(shape, context), bounds.ranges)
    found = {name: float(factor) for name, factor in bounds.beyond(values).items()}
    return {name: factor for name, factor in found.items() if factor > SLACK}


def beyond(law: Law, shape: Shape, tokens: float, context: int) -> list[str]:
    """In words, which quantities of a training lie outside the range that the law was fitted on; empty inside."""
    found = factors_beyond(law, shape, tokens, context)
    sides = _sides(law, shape, tokens, context)
    lines = [_line(name, factor, sides[name]) for name, factor in found.items() if name != "experts"]
    if "experts" in found:
        least, most = (1 - 1 / end for end in fence(law).ranges["experts"])
        where = f"beyond {most:.4g}, the sparsest" if shape.sparsity > most else f"below {least:.4g}, the densest"
        lines.append(f"sparsity {shape.sparsity:.4g} lies {where} of the law's runs")
    return lines


def _line(name: str, factor: float, side: str) -> str:
    verb = "is" if name in SINGULAR else "are"
    return f"{WORDS.get(name, name)} {verb} {human_factor(factor)} times {side} the range of the law's runs"


def _sides(law: Law, shape: Shape, tokens: float, context: int) -> dict[str, str]:
    """By quantity, on which side of the law's runs a training lies."""
    ranges = fence(law).ranges
    values = measured(law, shape, tokens, lambda: training_flops_per_token(shape, context), ranges)
    return {name: "below" if float(value) < ranges[name][0] else "above" for name, value in values.items()}


def far_beyond(law: Law, shape: Shape, tokens: float, context: int) -> dict[str, float]:
    """The quantities that make an answer an extrapolation; a dense model always is one to a law that saw none."""
    found, bounds = factors_beyond(law, shape, tokens, context), fence(law)
    unseen = not shape.experts and not bounds.saw_dense
    return {name: factor for name, factor in found.items() if factor > FAR or (unseen and name == "experts")}


def extrapolation_words(law: Law, shape: Shape, tokens: float, context: int) -> str:
    """What lies how far above or below the law's runs, each with the range of the runs; empty for what lies near."""
    ranges, sides = fence(law).ranges, _sides(law, shape, tokens, context)
    return "; ".join(
        f"{'sparsity' if name == 'experts' else WORDS.get(name, name)} {human_factor(factor)} times {sides[name]}"
        f" its runs ({span_amounts(name, ranges[name])})"
        for name, factor in far_beyond(law, shape, tokens, context).items()
    )


def states_sizes(law: Law) -> bool:
    """Whether a law's range says how large its runs were, so that being inside it means something."""
    return any(name in law.fitted_range for name in SIZES)


def inside_flops(law: Law, flops: float) -> float:
    """The budget closest to `flops` that lies within the range that the law was fitted on, where it states one."""
    low, high = law.fitted_range.get("flops", [flops, flops])
    return min(max(flops, low), high)
