"""What a measured effect says, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparsedial.records.effect import Better, Part
from sparsedial.records.evaluation import PairedDifference
from sparsedial.sweep.paired import is_above, is_below
from sparsedial.units import bare_exponent, signed

NAMES: dict[Part, str] = {"kept": "the kept part", "random": "the random part of equal size", "full": "the full text"}
MOST_REPEATS = 4.0  # epochs that are nearly as good as new text: Muennighoff et al. 2023, arXiv 2305.16264
NOT_EXTRAPOLATED = (
    "Nothing follows for other budgets: a filter that helps small ones can hurt large ones (arXiv 2605.19407)"
)


def effect_words(
    winner: Better,
    budget_flops: float,
    against_random: PairedDifference | None,
    against_full: PairedDifference | None,
    paid: bool = False,
) -> str:
    """Which part is best on test text at a budget, and how the kept part compares with both others."""
    total = " with the score's FLOPs counted" if paid else ""
    others: dict[Part, PairedDifference | None] = {"random": against_random, "full": against_full}
    compared = "; ".join(f"against {NAMES[other]} {_compared(found)}" for other, found in others.items())
    says = outcome(winner, against_random, against_full)
    return f"At {_flops(budget_flops)} FLOPs{total} {says}. The kept part: {compared}"


def outcome(winner: Better, against_random: PairedDifference | None, against_full: PairedDifference | None) -> str:
    """Which part is best, or that the kept one is worst, or that neither is known."""
    if winner != "undecided":
        return f"{NAMES[winner]} is best"
    if all(found is not None and is_above(found) for found in (against_random, against_full)):
        return "the kept part is worse than both others"
    return "no part is better than both others"


def _compared(difference: PairedDifference | None) -> str:
    if difference is None:
        return "too few runs finished"
    if is_below(difference) or is_above(difference):
        says = f"{'better' if difference.mean < 0 else 'worse'} by {abs(difference.mean):.4f}"
    else:
        says = f"undecided, {signed(difference.mean, '.4f')}"
    return f"{says} nats per token ({_interval(difference)})"


def _interval(difference: PairedDifference) -> str:
    if difference.low is None or difference.high is None:
        return f"all {difference.items} differences are alike"
    ends = f"{signed(difference.low, '.4f')} to {signed(difference.high, '.4f')}"
    return f"kept minus other {ends} at 95 %, {difference.items} seeds"


def direction_words(change: PairedDifference | None, budgets: Sequence[float]) -> str:
    """Where the lead of the kept part over the random one goes, and that this is no forecast."""
    between = f"From {_flops(budgets[0])} to {_flops(budgets[-1])} FLOPs"
    if change is None:
        return f"{between} too few runs finished to say where the kept part's lead over the random one goes"
    if is_above(change) or is_below(change):
        says = f"{'grows' if change.mean > 0 else 'shrinks'} by {abs(change.mean):.4f} nats per token"
    else:
        says = "neither grows nor shrinks by more than chance explains"
    return f"{between} the kept part's lead over the random one {says}. {NOT_EXTRAPOLATED}"


def repeats_words(repeats: Mapping[Part, float]) -> str:
    """How often a run of the larger budget reads its part."""
    each = ", ".join(f"{NAMES[part]} {times:.2g} times" for part, times in repeats.items())
    often = " More than four times is less than new text is worth" if max(repeats.values()) > MOST_REPEATS else ""
    return f"A run of the larger budget reads {each}.{often}"


def _flops(budget: float) -> str:
    return bare_exponent(f"{budget:.2g}")
